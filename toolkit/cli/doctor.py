"""``toolkit doctor``: what this machine has, and what to install for the rest."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import click
import msgspec

import toolkit
import toolkit.installed as installed
import toolkit.machine as machine
from toolkit.cli.layout import paragraph, rows
from toolkit.cli.options import emit, format_option
from toolkit.providers import nvidia, registry
from toolkit.providers.base import Availability, Unavailable

# What people ask first; the rest follows from pyproject.toml.
_PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch", "onnx", "onnx-ir", "onnxscript", "nncf",
    "transformers", "numpy", "msgspec",
)  # fmt: skip
# Extras made of other extras, for those who develop this project.
_COMPOSITE = ("demo", "test", "dev")
# The instructions that decide how fast reduced precision is.
_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
_BF16 = ("avx512_bf16", "amx_bf16", "bf16")


class Processor(msgspec.Struct, frozen=True):
    model: str
    architecture: str
    features: tuple[str, ...]
    int8: tuple[str, ...]
    bfloat16: tuple[str, ...]
    cores: int
    usable_cores: int
    container_quota: float | None


class Gpus(msgspec.Struct, frozen=True):
    """The GPUs that the driver shows, its newest CUDA; or the reason why there are none, with the remedy."""

    gpus: tuple[nvidia.Gpu, ...] = ()
    cuda: str = ""
    driver: str = ""
    reason: str = ""
    remedy: str = ""


class ProviderState(msgspec.Struct, frozen=True):
    provider: str
    available: bool
    version: str = ""
    devices: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""


class Report(msgspec.Struct, frozen=True):
    toolkit: str
    python: str
    system: str
    cpu: Processor
    memory_bytes: int
    nvidia: Gpus
    providers: tuple[ProviderState, ...]
    packages: dict[str, str | None]
    problems: tuple[installed.Problem, ...]
    extras_missing: dict[str, tuple[str, ...]]


@click.command()
@format_option
def doctor(output_format: str) -> None:
    """Show what this machine has, and what to install for the rest.

    Always exits with 0: what is missing is a fact, not a failure.
    """
    report = examine()
    emit(report_json(report), output_format, lambda: table(report))


def examine() -> Report:
    """Look at this machine and at what is installed."""
    return Report(
        toolkit=toolkit.__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}",
        cpu=_processor(),
        memory_bytes=machine.memory_limit_bytes(),
        nvidia=_gpus(),
        providers=tuple(_state(name, registry.provider(name).probe()) for name in registry.NAMES),
        packages={name: installed.version(name) for name in _PACKAGES},
        problems=(*_python_problem(), *installed.clashes(), *installed.too_old()),
        extras_missing=installed.missing_by_extra(name for name in installed.extras() if name not in _COMPOSITE),
    )


def _python_problem() -> tuple[installed.Problem, ...]:
    if sys.flags.optimize:
        return (installed.Problem("python runs with -O, which drops assertions", "start it without -O"),)
    return ()


def _processor() -> Processor:
    features = machine.cpu_features()
    return Processor(
        model=machine.cpu_model(),
        architecture=platform.machine(),
        features=features,
        int8=tuple(name for name in _INT8 if name in features),
        bfloat16=tuple(name for name in _BF16 if name in features),
        cores=os.cpu_count() or 1,
        usable_cores=machine.usable_cores(),
        container_quota=machine.container_quota(),
    )


def _gpus() -> Gpus:
    found = nvidia.driver()
    if isinstance(found, Unavailable):
        return Gpus(reason=found.reason, remedy=found.remedy, driver=nvidia.kernel_module())
    return Gpus(found.gpus, f"{found.cuda[0]}.{found.cuda[1]}", nvidia.kernel_module())


def _state(name: str, found: Availability) -> ProviderState:
    if isinstance(found, Unavailable):
        return ProviderState(name, False, reason=found.reason, remedy=found.remedy)
    return ProviderState(name, True, version=found.version, devices=found.devices)


def report_json(report: Report) -> dict[str, Any]:
    return dict(msgspec.to_builtins(report))


def table(report: Report) -> str:
    """The report as text, 80 columns wide."""
    sections = (
        [f"toolkit {report.toolkit}, Python {report.python}, {report.system}"],
        rows(_machine(report)),
        ["Providers", *_providers(report.providers)],
        ["Packages", *paragraph(", ".join(f"{name} {found}" for name, found in report.packages.items() if found))],
        ["Problems", *_problems(report.problems)],
        ["To install the rest", *_extras(report.extras_missing)],
    )
    return "\n\n".join("\n".join(lines) for lines in sections if len(lines) > 1 or lines[0].startswith("toolkit"))


def _machine(report: Report) -> list[tuple[str, str]]:
    cpu = report.cpu
    quota = "no container quota" if cpu.container_quota is None else f"container quota {cpu.container_quota:g}"
    return [
        ("CPU", f"{cpu.model} ({cpu.architecture})"),
        ("  int8", ", ".join(cpu.int8) or "no instructions for it: expect little or no gain"),
        ("  bfloat16", ", ".join(cpu.bfloat16) or "no instructions for it"),
        ("Cores", f"{cpu.usable_cores} usable of {cpu.cores}, {quota}"),
        ("Memory", f"{report.memory_bytes / 1e9:.1f} GB"),
        *_gpu_rows(report.nvidia),
    ]


def _gpu_rows(found: Gpus) -> list[tuple[str, str]]:
    if found.reason:
        return [("GPU", f"none: {found.reason}")]
    driver = f"driver {found.driver or 'unknown'}, CUDA up to {found.cuda}"
    return [
        *(
            (f"GPU {i}", f"{gpu.name}, {gpu.memory_bytes / 1e9:.0f} GB, {gpu.compute}")
            for i, gpu in enumerate(found.gpus)
        ),
        ("", driver),
    ]


def _providers(states: tuple[ProviderState, ...]) -> list[str]:
    pairs = []
    for state in states:
        if state.available:
            pairs.append((f"  {state.provider}", f"{state.version}: {', '.join(state.devices)}"))
        else:
            pairs += [(f"  {state.provider}", f"not available: {state.reason}"), ("", f"→ {state.remedy}")]
    return rows(pairs)


def _problems(problems: tuple[installed.Problem, ...]) -> list[str]:
    lines = [line for item in problems for line in (*paragraph(item.what), *paragraph(f"→ {item.remedy}"))]
    return lines or ["  none found"]


def _extras(missing: dict[str, tuple[str, ...]]) -> list[str]:
    return rows(
        [
            (f"  {extra}", f"pip install 'onnx-toolkit[{extra}]' ({', '.join(names)})")
            for extra, names in missing.items()
        ]
    )
