"""NVIDIA's driver, asked directly: whether it is loaded, the CUDA it supports, the GPUs it shows to this process.

Source: docs.nvidia.com/cuda/cuda-driver-api. Nothing here creates a context, so no memory of a GPU is taken.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from toolkit.providers.base import Unavailable

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_REMEDY = "an NVIDIA GPU and its driver are needed; start a container with --gpus all"


class Gpu(msgspec.Struct, frozen=True):
    """One GPU. ``compute`` is its compute capability, such as ``9.0``; ``uuid`` names this very card."""

    name: str
    compute: str
    memory_bytes: int
    uuid: str

    @property
    def has_tf32(self) -> bool:
        return int(self.compute.split(".")[0]) >= 8


class Driver(msgspec.Struct, frozen=True):
    """The loaded driver: the newest CUDA it supports as (major, minor), and the GPUs in order of their index."""

    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]


def load_library() -> Any:
    """The driver's library.

    Raises:
        OSError: there is none.
    """
    return ctypes.CDLL(_LIBRARY)


def driver() -> Driver | Unavailable:
    """What the driver says, or why it says nothing."""
    try:
        library = load_library()
    except OSError:
        return Unavailable(f"there is no NVIDIA driver ({_LIBRARY} is missing)", _REMEDY)
    if code := library.cuInit(0):
        return Unavailable(f"the NVIDIA driver does not start: {_text(library, code)}", _REMEDY)
    count, version = ctypes.c_int(), ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    library.cuDriverGetVersion(ctypes.byref(version))
    if not count.value:
        return Unavailable("the NVIDIA driver shows no GPU to this process", "check CUDA_VISIBLE_DEVICES")
    gpus = tuple(_gpu(library, index) for index in range(count.value))
    return Driver((version.value // 1000, version.value % 1000 // 10), gpus)


def _gpu(library: Any, index: int) -> Gpu:
    handle, memory = ctypes.c_int(), ctypes.c_size_t()
    name, uuid = ctypes.create_string_buffer(256), ctypes.create_string_buffer(16)
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    library.cuDeviceGetUuid(uuid, handle)
    compute = f"{_attribute(library, handle, _MAJOR)}.{_attribute(library, handle, _MINOR)}"
    return Gpu(name.value.decode(errors="replace"), compute, memory.value, uuid.raw.hex())


def _attribute(library: Any, handle: ctypes.c_int, attribute: int) -> int:
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
    return value.value


def _text(library: Any, code: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorString(code, ctypes.byref(text))
    return text.value.decode(errors="replace") if text.value else f"error {code}"


def kernel_module() -> str:
    """Version of the driver's kernel module, such as ``580.159.03``; "" where Linux has none loaded."""
    path = Path("/proc/driver/nvidia/version")
    match = re.search(r"\d+\.\d+(\.\d+)?", path.read_text(encoding="utf-8")) if path.is_file() else None
    return match[0] if match else ""
