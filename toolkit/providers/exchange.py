"""Arrays of other libraries in a session's feeds, through DLPack: shared, not copied, and none of them imported.

Source: data-apis.org/array-api, "Data interchange mechanisms": device kinds of ``__dlpack_device__``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolkit.errors import InvalidInput
from toolkit.tensors import Array, numpy_dtype

_HOST_KINDS = (1, 3, 11)  # kDLCPU, kDLCUDAHost, kDLROCMHost: memory that numpy can read
_KINDS = {2: "cuda", 4: "opencl", 7: "vulkan", 8: "metal", 10: "rocm", 13: "cuda-managed", 14: "oneapi"}


def on_device(value: object) -> bool:
    """Whether ``value`` lies in memory that numpy cannot read."""
    return not isinstance(value, np.ndarray) and hasattr(value, "__dlpack_device__") and _kind(value) not in _HOST_KINDS


def _kind(value: Any) -> int:
    return int(value.__dlpack_device__()[0])


def host_arrays(feeds: Mapping[str, Any]) -> dict[str, Any]:
    """``feeds`` as numpy arrays in this machine's byte order; tensors on a device stay what they are.

    Memory is shared where it can be; only another byte order costs a copy.
    """
    return {name: value if on_device(value) else _host_array(name, value) for name, value in feeds.items()}


def _host_array(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))
    if not hasattr(value, "__dlpack__"):
        return value  # the check says what it is instead
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as exc:
        raise InvalidInput(
            "this tensor cannot be read as a numpy array", where=f"input '{name}'", got=f"{_described(value)}: {exc}",
            next_step="feed a numpy array",
        ) from exc  # fmt: skip


def stand_in(value: Any) -> Array:
    """An array of the type and shape of a tensor on a device, without its content, to be checked in its place.

    Raises:
        InvalidInput: numpy has no such type.
    """
    return np.broadcast_to(np.zeros((), numpy_dtype(str(value.dtype).rpartition(".")[2])), tuple(value.shape))


def place_of(value: Any) -> str:
    """``cuda:0``."""
    kind, index = value.__dlpack_device__()
    return f"{_KINDS.get(int(kind), f'device kind {kind}')}:{index}"


def _described(value: Any) -> str:
    return f"{type(value).__name__} {getattr(value, 'dtype', '')}"
