"""Whether CUDA works here, found by trying: the wheel, the driver, its GPUs, the libraries, a model of two nodes.

ONNX Runtime lists its CUDA provider as available on a machine without any GPU, and then runs on the CPU.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import io
import sys
from functools import cache
from typing import Any

import numpy as np

from toolkit.errors import MissingDependency, ProviderUnavailable, one_line
from toolkit.providers.base import Availability, Available, Unavailable, first_line
from toolkit.providers.nvidia import Driver, driver
from toolkit.providers.onnxruntime_ import Chain, import_onnxruntime, inference_session, session_options
from toolkit.providers.onnxruntime_proof import RECORD_ASSIGNMENT, assignment
from toolkit.targets import Target

NAME = "CUDAExecutionProvider"

_WHEEL = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnx-toolkit[gpu]'"
_LIBRARIES = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
_CUDNN = "cudnn64_9.dll" if sys.platform == "win32" else "libcudnn.so.9"

# y = MatMul(Conv(x, [[2]]), [[1, 0], [0, 3]]) on a 1×1×2×2 float32 image, opset 13: one kernel of cuDNN, one of cuBLAS.
TRIAL_MODEL = base64.b64decode(
    "CAc6lwEKDwoBeAoBdxIBYyIEQ29udgoRCgFjCgFtEgF5IgZNYXRNdWwSBXRyaWFsKhMIAQgBCAEIARABQgF3SgQAAABAKhsIAggC"
    "EAFCAW1KEAAAgD8AAAAAAAAAAAAAQEBaGwoBeBIWChQIARIQCgIIAQoCCAEKAggCCgIIAmIbCgF5EhYKFAgBEhAKAggBCgIIAQoC"
    "CAIKAggCQgQKABAN"
)
TRIAL_INPUT = np.array([[[[1, 2], [3, 4]]]], np.float32)
TRIAL_OUTPUT = np.array([[[[2, 12], [6, 24]]]], np.float32)


def wheel_problem(provider: str) -> Unavailable | None:
    """Why the installed onnxruntime cannot offer ``provider``, if it cannot."""
    try:
        ort = import_onnxruntime()
    except (MissingDependency, ProviderUnavailable, OSError) as exc:
        return Unavailable(f"onnxruntime-gpu is not installed or broken: {first_line(exc)}", _WHEEL)
    if provider not in ort.get_available_providers():
        return Unavailable(f"onnxruntime {ort.__version__} is a build without {provider}", _WHEEL)
    return None


def driver_problem(found: Driver | Unavailable, device: str, built_for: str) -> Unavailable | None:
    """Why the driver cannot serve ``device`` to an engine built for the CUDA version ``built_for``, if it cannot."""
    if isinstance(found, Unavailable):
        return found
    if not device.isdigit() or int(device) >= len(found.gpus):
        there = ", ".join(f"{index} ({gpu.name})" for index, gpu in enumerate(found.gpus))
        return Unavailable(f"there is no GPU {device!r} here, only {there}", "name the GPU by its index: cuda:0")
    if built_for and int(built_for.split(".")[0]) > found.cuda[0]:
        major, minor = found.cuda
        return Unavailable(
            f"the NVIDIA driver supports CUDA {major}.{minor}, but onnxruntime-gpu was built for CUDA {built_for}",
            f"update the driver, or install an onnxruntime-gpu that was built for CUDA {major}",
        )
    return None


def library_problem() -> Unavailable | None:
    """Load CUDA and cuDNN from pip packages or the system; says which library is missing, if one is."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints what it could not load, and returns nothing
        import_onnxruntime().preload_dlls()
    for line in said.getvalue().splitlines():
        if line.startswith("Failed to load"):
            return Unavailable(
                f"a CUDA library is missing: {one_line(line.removeprefix('Failed to load '))}", _LIBRARIES
            )
    try:
        ctypes.CDLL(_CUDNN)
    except OSError as exc:
        return Unavailable(f"cuDNN 9 is missing: {first_line(exc)}", _LIBRARIES)
    return None


def opening_problem(chain: Chain) -> Unavailable | None:
    """Open a model of two nodes on ``chain``; says why it did not work, if it did not."""
    found = _open_trial(chain)
    return found if isinstance(found, Unavailable) else None


def trial_problem(chain: Chain) -> Unavailable | None:
    """Run two nodes on the first of ``chain`` and look at the numbers; says why it did not work, if it did not."""
    session, wanted = _open_trial(chain), chain[0][0]
    if isinstance(session, Unavailable):
        return session
    taken = assignment(session)
    if set(taken) != {wanted}:
        return Unavailable(f"{wanted} left a trial model to {', '.join(taken)}", _LIBRARIES)
    try:
        answer = session.run(None, {"x": TRIAL_INPUT})[0]
    except Exception as exc:  # noqa: BLE001  # whatever the engine raises is the reason
        return Unavailable(f"a trial model does not run on {wanted}: {one_line(exc, 200)}", _LIBRARIES)
    if not np.allclose(answer, TRIAL_OUTPUT):
        return Unavailable(f"a trial model gives wrong numbers on {wanted}", "check the GPU with its maker's tools")
    return None


def _open_trial(chain: Chain) -> Any:
    ort = import_onnxruntime()
    options = session_options(Target(provider="", threads=1), RECORD_ASSIGNMENT)
    ort.set_default_logger_severity(4)  # what goes wrong is told once, by what this returns
    try:
        return inference_session(TRIAL_MODEL, options, chain)
    except Exception as exc:  # noqa: BLE001  # whatever the engine raises is the reason
        return Unavailable(f"a trial model does not open on {chain[0][0]}: {one_line(exc, 200)}", _LIBRARIES)
    finally:
        ort.set_default_logger_severity(2)  # ONNX Runtime's default


def joined(problems: list[Unavailable]) -> Unavailable:
    """Several problems, each to be solved, as one."""
    return Unavailable("; ".join(item.reason for item in problems), "; ".join(item.remedy for item in problems))


@cache
def probe(device: str) -> Availability:
    """Whether CUDA works on GPU ``device``; tried once per process."""
    found = driver()
    built_for = "" if wheel_problem(NAME) else str(import_onnxruntime().cuda_version or "")
    problems = [item for item in (driver_problem(found, device, built_for), wheel_problem(NAME)) if item is not None]
    if problems:
        return joined(problems)
    problem = library_problem() or trial_problem([(NAME, {"device_id": device})])
    if problem is not None:
        return problem
    assert isinstance(found, Driver)
    return Available(
        import_onnxruntime().__version__, tuple(f"{index}: {gpu.name}" for index, gpu in enumerate(found.gpus))
    )
