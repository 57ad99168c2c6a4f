"""A CUDA stream and events on it, through the driver's library: what the device itself says a computation took.

Source: docs.nvidia.com/cuda/cuda-driver-api, "Stream Management" and "Event Management". The primary context is the one
that the CUDA runtime, and so ONNX Runtime, works in.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol, final

from toolkit.errors import EngineError
from toolkit.providers import nvidia

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: not ordered with the default stream, as ONNX Runtime's own streams are


class Stream(Protocol):
    """Marks in the order of the device's work, and the time between two of them."""

    def mark(self) -> Any: ...

    def elapsed_ns(self, first: Any, second: Any) -> int: ...


@final
class CudaStream:
    """A stream of its own on GPU ``index``.

    Raises:
        EngineError: the driver refuses one of the calls.
    """

    def __init__(self, index: int) -> None:
        self._library = nvidia.load_library()
        device, self._context, self._stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), index)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._call("cuCtxSetCurrent", self._context)
        self._call("cuStreamCreate", ctypes.byref(self._stream), _NON_BLOCKING)

    @property
    def pointer(self) -> int:
        """The stream as ONNX Runtime's option ``user_compute_stream`` takes it."""
        return self._stream.value or 0

    def mark(self) -> ctypes.c_void_p:
        """An event behind all work that was put on the stream so far."""
        event = ctypes.c_void_p()
        self._call("cuCtxSetCurrent", self._context)
        self._call("cuEventCreate", ctypes.byref(event), 0)
        self._call("cuEventRecord", event, self._stream)
        return event

    def elapsed_ns(self, first: ctypes.c_void_p, second: ctypes.c_void_p) -> int:
        """Time between two marks, which are given back."""
        milliseconds = ctypes.c_float()
        self._call("cuEventSynchronize", second)
        self._call("cuEventElapsedTime", ctypes.byref(milliseconds), first, second)
        for event in (first, second):
            self._call("cuEventDestroy_v2", event)
        return round(milliseconds.value * 1e6)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise EngineError("the CUDA driver refused a call", got=f"error {code} of {name}")
