"""The machine and the software that a measurement was taken on, and a fingerprint that tells two of them apart."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import msgspec

import toolkit.machine as machine
from toolkit.profiler.nvidia_smi import nvidia_smi

# Distributions whose version changes latencies. Names of packages, not of providers: one package serves several.
PACKAGES = (
    "onnx-toolkit", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "numpy", "tensorrt", "tensorrt-cu12",
    "tensorrt-cu13", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
)  # fmt: skip
# What engines and their thread pools read; part of the environment in the other sense of the word too.
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
_GPU_FIELDS = ("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "persistence_mode")
_CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")


class Environment(msgspec.Struct, frozen=True):
    """Facts that stay while the machine stays (``fingerprint`` covers them) and ``state``, which does not."""

    fingerprint: str
    cpu: str
    cpu_features: tuple[str, ...]
    usable_cores: int
    container_quota_cores: float | None
    memory_bytes: int
    governor: str | None
    gpus: tuple[dict[str, str], ...]
    os: str
    architecture: str
    python: str
    packages: dict[str, str]
    variables: dict[str, str]
    state: dict[str, Any] = {}


def environment() -> Environment:
    """Read the environment; what this machine does not tell is None or left out."""
    facts: dict[str, Any] = {
        "cpu": machine.cpu_model(),
        "cpu_features": machine.cpu_features(),
        "usable_cores": machine.usable_cores(),
        "container_quota_cores": machine.container_quota(),
        "memory_bytes": machine.memory_limit_bytes(),
        "governor": _read(_CPU / "scaling_governor"),
        "gpus": gpus(),
        "os": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "packages": packages(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    digest = hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()[:16]
    return Environment(fingerprint=digest, state=state(), **facts)


def state() -> dict[str, Any]:
    """What changes from minute to minute: load averages over 1, 5 and 15 minutes, free memory, clock rate."""
    frequency = _read(_CPU / "scaling_cur_freq")
    return {
        "load_average": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "available_memory_bytes": available_memory_bytes(),
        "cpu_frequency_hz": int(frequency) * 1000 if frequency else None,
    }


def packages() -> dict[str, str]:
    """Versions of the installed :data:`PACKAGES`; nothing is imported."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def gpus() -> tuple[dict[str, str], ...]:
    """One record per NVIDIA GPU as nvidia-smi reports it; empty where there is none."""
    try:
        return tuple(dict(zip(_GPU_FIELDS, cells, strict=False)) for cells in nvidia_smi(_GPU_FIELDS))
    except OSError as exc:
        return ({"error": str(exc)},)


def available_memory_bytes() -> int | None:
    """Memory that can be used without swapping, the container's limit included; None where the kernel does not tell."""
    for line in (_read(Path("/proc/meminfo")) or "").splitlines():
        if line.startswith("MemAvailable:"):
            return min(int(line.split()[1]) * 1024, machine.memory_limit_bytes())
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
