"""What a quantization did, in figures."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from toolkit.profiler.pairing import PairedRatio
from toolkit.quantizer.lowering.lowered import Rounding
from toolkit.quantizer.plan import LeftInFloat
from toolkit.verifier.metrics import OutputMetrics


class Accuracy(msgspec.Struct, frozen=True):
    """Quality before and after on the same samples.

    Attributes:
        metric: the task's headline metric; ``before`` and ``after`` are its values.
        drop: in points (hundredths of a fraction; decibels for images); negative where the new model is better.
        samples: how many ``before`` and ``after`` were measured on.
        drop_samples: the drop as a number of samples; None for metrics that do not count samples.
        unseen: whether no choice was made, and no range taken, on these samples.
    """

    metric: str
    before: float
    after: float
    drop: float
    samples: int
    drop_samples: float | None
    unseen: bool


def worst_snr_db(outputs: Iterable[OutputMetrics]) -> float:
    """The lowest SNR among the floating outputs, in decibels."""
    return min((item.snr_db for item in outputs if item.is_float), default=math.inf)


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate: how it was made, how good and how fast it is, and why it was not kept.

    Attributes:
        outputs: per output, the error against the float model.
        accuracy: on the samples that choices are made on; None without labels.
        speed: time of this one over time of the float model on the target, taken in turns; None where not measured.
        refusal: why it is not usable; "" when it is.
    """

    name: str
    precision: str
    quantized: dict[str, int] = {}
    size_bytes: int = 0
    outputs: tuple[OutputMetrics, ...] = ()
    accuracy: Accuracy | None = None
    speed: PairedRatio | None = None
    refusal: str = ""

    @property
    def snr_db(self) -> float:
        return worst_snr_db(self.outputs)


class QuantizeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One quantization.

    Attributes:
        method: what the output is; "float32" where nothing beat the float model.
        observer: how ranges were chosen; "" where there are none.
        checked_on: the target that the output was compared on, which is ``target`` where that is available.
        calibration_samples: 0 where none were needed.
        quantized: nodes that were narrowed, by operator.
        left: nodes that the placement knows but that stayed in float, with the reason.
        roundings: per quantized activation, how well 8 bits hold it; the worst first.
        outputs: per output, the error against the float model.
        candidates: what "auto" tried.
        sha256: of the output file.
    """

    source: str
    output: str
    target: str
    checked_on: str
    method: str
    observer: str
    precision: str
    calibration: str
    calibration_samples: int
    opset_before: int
    opset_after: int
    size_bytes_before: int
    size_bytes_after: int
    quantized: dict[str, int]
    left: tuple[LeftInFloat, ...]
    roundings: tuple[Rounding, ...]
    outputs: tuple[OutputMetrics, ...]
    accuracy: Accuracy | None
    speed: PairedRatio | None
    candidates: tuple[Trial, ...]
    notes: tuple[str, ...]
    sha256: str
