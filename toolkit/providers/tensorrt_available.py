"""Whether TensorRT works here: all that CUDA needs, and the TensorRT that this ONNX Runtime was built for."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from functools import cache
from importlib import metadata
from pathlib import Path

from toolkit.providers import cuda_available
from toolkit.providers.base import Availability, Available, Unavailable, first_line
from toolkit.providers.onnxruntime_ import import_onnxruntime

NAME = "TensorrtExecutionProvider"
_BRIDGES = ("libonnxruntime_providers_tensorrt.so", "onnxruntime_providers_tensorrt.dll")
# The library that the bridge was linked with, as it stands in the bridge: libnvinfer.so.10, nvinfer_10.dll.
_NEEDED = re.compile(rb"(?:lib)?nvinfer(?:\.so\.(\d+)|_(\d+)\.dll)")
# TensorRT's packages on PyPI; the libraries are in the folder tensorrt_libs.
_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
_FOLDER = "tensorrt_libs"


def needed_library(capi: Path) -> tuple[str, int] | None:
    """The TensorRT library that ONNX Runtime's bridge in ``capi`` loads, and its major version, if there is one."""
    for bridge in _BRIDGES:
        path = capi / bridge
        match = _NEEDED.search(path.read_bytes()) if path.is_file() else None
        if match:
            return match[0].decode(), int(match[1] or match[2])
    return None


def installed_package() -> tuple[str, str] | None:
    """Name and version of the TensorRT package that pip installed, if any."""
    for name in _PACKAGES:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def load_library(name: str) -> str:
    """Load TensorRT and its ONNX parser, from the pip package or the system; returns the version, such as ``10.16.1``.

    Raises:
        OSError: the library is not there or does not load.
    """
    spec = importlib.util.find_spec(_FOLDER)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec is not None else []
    library = _load(name, folders)
    _load(name.replace("nvinfer", "nvonnxparser"), folders)
    number = int(library.getInferLibVersion())  # 101601 is 10.16.1
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _load(name: str, folders: list[Path]) -> ctypes.CDLL:
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    return ctypes.CDLL(name if found is None else str(found), mode=ctypes.RTLD_GLOBAL)


def library_problem(capi: Path) -> Unavailable | str:
    """TensorRT's version, or why it cannot be used."""
    needed = needed_library(capi)
    if needed is None:
        return Unavailable(
            "the installed onnxruntime has no TensorRT provider in it", "pip install 'onnx-toolkit[gpu]'"
        )
    name, major = needed
    remedy = f"pip install 'tensorrt<{major + 1}'"
    try:
        return load_library(name)
    except OSError as exc:
        package = installed_package()
        if package is not None and not package[1].startswith(f"{major}."):
            reason = (
                f"{package[0]} {package[1]} is installed, but this onnxruntime was built for TensorRT {major} ({name})"
            )
            return Unavailable(reason, remedy)
        return Unavailable(f"TensorRT {major} is missing: {first_line(exc)}", remedy)


@cache
def probe(device: str) -> Availability:
    """Whether TensorRT works on GPU ``device``; tried once per process, without building an engine."""
    base = cuda_available.probe(device)
    if isinstance(base, Unavailable):
        return base
    problem = cuda_available.wheel_problem(NAME)
    if problem is not None:
        return problem
    ort = import_onnxruntime()
    found = library_problem(Path(ort.__file__).parent / "capi")
    if isinstance(found, Unavailable):
        return found
    problem = cuda_available.opening_problem([(NAME, {"device_id": device, "trt_min_subgraph_size": "1000"})])
    return problem or Available(f"{ort.__version__} with TensorRT {found}", base.devices)


def version(device: str) -> str:
    """Versions of ONNX Runtime and TensorRT, or "" where TensorRT is not there."""
    found = probe(device)
    return found.version if isinstance(found, Available) else ""
