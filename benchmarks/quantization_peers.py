"""One quantizer on one model, in a process of its own: ``python quantization_peers.py JOB.json RESULT.json``.

A process of its own is what makes its peak memory its own, and what lets a quantizer crash alone. Imports are done
before the clock starts. Peers get what their documentation tells users to do and nothing of this toolkit.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Job = dict[str, Any]
Feeds = dict[str, np.ndarray]

# ONNX Runtime and NNCF write weights per channel from here on, and both say so when they meet an older model.
PER_CHANNEL_OPSET = 13
_FOLDERS = re.compile(r"(?<!\S)(/[^\s/]+)+/")


def samples(job: Job) -> Iterator[Feeds]:
    """What the model is fed with, sample by sample, state inputs included."""
    with np.load(job["feeds"]) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for index in range(len(next(iter(arrays.values())))):
        yield {name: np.asarray(array[index]) for name, array in arrays.items()}


# this toolkit


def ours(job: Job) -> list[str]:
    """Optimize, then quantize for the target: what a user of this toolkit runs."""
    import toolkit

    optimized = Path(job["folder"]) / "optimized.onnx"
    start = time.perf_counter()
    toolkit.optimize(job["model"], optimized)
    report = toolkit.quantize(
        optimized, job["output"], target=job["target"], method=job.get("method", "auto"),
        observer=job.get("observer", "minmax"), calibration=job["calibration"], data=job["choose"],
        max_drop=job["max_drop"],
    )  # fmt: skip
    tried = [
        f"{trial.name}: {'not measured' if trial.speed is None else f'x{1 / trial.speed.ratio:.2f}'}"
        + (f", {trial.refusal}" if trial.refusal else "")
        for trial in report.candidates
    ]
    total = time.perf_counter() - start
    return [f"kept {report.method} ({report.precision}) after {total:.0f} s", *report.notes, *tried]


# ONNX Runtime


class _Reader:
    """ONNX Runtime's CalibrationDataReader, by duck typing."""

    def __init__(self, job: Job) -> None:
        self._feeds = samples(job)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


def upgraded(job: Job) -> tuple[str, list[str]]:
    """The model at an opset that takes weights per channel, converted with onnx's own converter."""
    import onnx

    model = onnx.load(job["model"])
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset >= PER_CHANNEL_OPSET:
        return job["model"], []
    path = str(Path(job["folder"]) / "upgraded.onnx")
    onnx.save(onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET), path)
    return path, [f"opset {opset} converted to {PER_CHANNEL_OPSET} first"]


def _preprocessed(model: str, folder: str) -> tuple[str, list[str]]:
    """What quant_pre_process makes of the model, or the model where it fails, with the reason."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path, reasons = str(Path(folder) / "preprocessed.onnx"), []
    for skip in (False, True):
        try:
            quant_pre_process(model, path, skip_symbolic_shape=skip)
        except Exception as exc:  # noqa: BLE001 - whatever it raises, users go on without it
            reasons.append(f"quant_pre_process(skip_symbolic_shape={skip}): {one_line(exc)}")
        else:
            return path, reasons
    return model, reasons


def ort_static(job: Job) -> list[str]:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model, notes = upgraded(job)
    model, more = _preprocessed(model, job["folder"])
    quantize_static(
        model, job["output"], _Reader(job), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8 if job.get("signed") else QuantType.QUInt8, weight_type=QuantType.QInt8,
        calibrate_method=getattr(CalibrationMethod, job["calibrator"]),
    )  # fmt: skip
    return [*notes, *more]


def ort_dynamic(job: Job) -> list[str]:
    """Weights are unsigned where there are convolutions: ONNX Runtime has no ConvInteger for signed ones."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model, notes = _preprocessed(job["model"], job["folder"])
    convolutions = any(node.op_type == "Conv" for node in onnx.load(model, load_external_data=False).graph.node)
    quantize_dynamic(
        model, job["output"], per_channel=not convolutions,
        weight_type=QuantType.QUInt8 if convolutions else QuantType.QInt8,
    )  # fmt: skip
    return notes


# NNCF


def _nncf(job: Job, model: Any) -> Any:
    import nncf

    feeds = list(samples(job))
    kind = nncf.ModelType.TRANSFORMER if job["transformer"] else None
    return nncf.quantize(model, nncf.Dataset(feeds), model_type=kind, subset_size=len(feeds))


def nncf_onnx(job: Job) -> list[str]:
    import onnx

    path, notes = upgraded(job)
    onnx.save(_nncf(job, onnx.load(path)), job["output"])
    return notes


def nncf_ir(job: Job) -> list[str]:
    import openvino

    quantized = _nncf(job, openvino.Core().read_model(job["model"]))
    openvino.save_model(quantized, job["output"], compress_to_fp16=False)
    return []


METHODS: dict[str, Callable[[Job], list[str]]] = {
    "ours": ours,
    "ort_static": ort_static,
    "ort_dynamic": ort_dynamic,
    "nncf_onnx": nncf_onnx,
    "nncf_ir": nncf_ir,
}
IMPORTS = {
    "ours": ("toolkit.optimizer.api", "toolkit.quantizer.api", "onnxruntime"),
    "ort_static": ("onnx", "onnxruntime.quantization", "onnxruntime.quantization.shape_inference"),
    "ort_dynamic": ("onnx", "onnxruntime.quantization", "onnxruntime.quantization.shape_inference"),
    "nncf_onnx": ("onnx", "nncf.onnx", "nncf.onnx.quantization.quantize_model"),
    "nncf_ir": ("openvino", "nncf.openvino.quantization.quantize_model"),
}


def one_line(exc: BaseException) -> str:
    """``ValueError: reason``: the first line that says something, without the folders of temporary files."""
    lines = [_FOLDERS.sub("", line).strip() for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[0] if lines else 'no message'}"[:300]


def main(job_path: str, result_path: str) -> None:
    import importlib

    job: Job = json.loads(Path(job_path).read_text())
    result: dict[str, Any] = {}
    start = time.perf_counter()
    try:
        for name in IMPORTS[job["kind"]]:
            importlib.import_module(name)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        result["notes"] = METHODS[job["kind"]](job)
        result["imports_mb"] = before
    except Exception as exc:  # noqa: BLE001 - a peer may raise anything; its row says what
        result["error"] = one_line(exc)
    result["seconds"] = time.perf_counter() - start
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(result_path).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:3])
