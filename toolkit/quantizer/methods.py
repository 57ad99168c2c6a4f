"""The methods by name, and what each has to try on a target. A recipe makes one candidate when it is asked to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from toolkit.errors import NotApplicable
from toolkit.providers import registry
from toolkit.providers.placement import Variant
from toolkit.quantizer.choices import Bits, Method, Observer
from toolkit.quantizer.job import Job
from toolkit.quantizer.lowering import half, onnxruntime_, weights
from toolkit.quantizer.lowering.fused import may_fuse
from toolkit.quantizer.lowering.lowered import Lowered
from toolkit.quantizer.lowering.static import OPSET, lower_static

_FINER: Observer = "mse"
"""What "auto" tries beside the observer that was asked for: it lost least on most models that were tried."""


class Recipe(NamedTuple):
    """A candidate before it is made.

    Attributes:
        name: unique among those of one quantization.
        method: its row in the table below.
        opset: that the model is brought to.
        observer: "" where none is used.
        group: recipes of one group give models of the same speed; "auto" races the best of each. "" for no group.
        without: the same with further nodes left in float, by name with the reason; None where the method cannot.
        corrected: the same with biases corrected; None where the method cannot, or there are no samples to do it by.
    """

    name: str
    method: Method
    precision: str
    opset: int
    observer: str
    lower: Callable[[], Lowered]
    group: str = ""
    without: Callable[[Mapping[str, str]], Recipe] | None = None
    corrected: Callable[[], Recipe] | None = None


class Choices(NamedTuple):
    """What the caller wants of the methods that leave a choice; ``placement`` "" means the table's first variant."""

    observer: Observer
    bits: Bits
    placement: str
    keep_float: tuple[str, ...]


def recipes(method: Method, job: Job, choices: Choices) -> list[Recipe]:
    """What ``method`` has to try for the job's target; more than one only for "auto".

    Raises:
        NotApplicable: the target's engine or its allowed precisions rule the method out.
    """
    if method == "auto":
        return [recipe for make in _METHODS.values() for recipe in make(job, choices, True)]
    found = _METHODS[method](job, choices, False)
    if not found:
        raise NotApplicable(
            f"{method} does nothing good on this engine", where=job.target.name, next_step="--method auto"
        )
    precision = found[0].precision
    if precision not in registry.provider(job.target.provider).precisions:
        raise NotApplicable(f"{job.target.provider} runs no {precision} files", where=job.target.name)
    if not job.target.allows(precision):
        raise NotApplicable(
            f"this target does not allow {precision} files", where=job.target.name,
            expected=f"one of: {', '.join(job.target.precisions)}", next_step="use another --target or --method",
        )  # fmt: skip
    return found[:1]


def _static(job: Job, choices: Choices, every: bool) -> list[Recipe]:
    chosen = [job.rules.variant(choices.placement)] if choices.placement else list(job.rules.variants)
    if every and not job.can_calibrate:
        return []

    asked = dict.fromkeys(choices.keep_float, "kept in float on request")

    def recipe(
        variant: Variant, observer: Observer, further: Mapping[str, str] | None = None, correct: bool = False
    ) -> Recipe:
        group = f"static int8, {variant.name}"
        name = f"{group}, {observer}" if every else group
        name = f"{name}, corrected" if correct else name
        return Recipe(
            f"{name}, {len(further)} nodes in float" if further else name, "static", "int8", OPSET, observer,
            lambda: lower_static(
                job.prepared(OPSET).model, variant, job.record(), observer, keep_float={**(further or {}), **asked},
                shifts=job.shifts(variant, observer) if correct else None,
            ),
            group=group,
            without=lambda nodes: recipe(variant, observer, {**(further or {}), **nodes}, correct),
            corrected=None if correct or not job.can_correct else lambda: recipe(variant, observer, further, True),
        )  # fmt: skip

    observers = dict.fromkeys((choices.observer, _FINER) if every else (choices.observer,))
    if every and not may_fuse(job.prepared(OPSET).model):
        chosen = [variant for variant in chosen if not variant.fused]  # the same file as without
    return [recipe(variant, observer) for variant in chosen for observer in observers]


def _dynamic(job: Job, choices: Choices, every: bool) -> list[Recipe]:
    rules = job.rules.dynamic
    if rules is None:
        return []
    opset = onnxruntime_.DYNAMIC_OPSET
    return [
        Recipe(
            "dynamic int8", "dynamic", "int8", opset, "",
            lambda: onnxruntime_.lower_dynamic(job.prepared(opset).model, rules),
        )
    ]  # fmt: skip


def _weight_only(job: Job, choices: Choices, every: bool) -> list[Recipe]:
    rules, bits = job.rules.weight_only, choices.bits
    if rules is None or bits not in rules.bits:
        return []
    opset = weights.OPSETS[bits]
    forms: dict[str, Callable[[], Lowered]] = {
        "MatMulNBits": lambda: onnxruntime_.lower_to_nbits(job.prepared(opset).model, rules, bits),
        "qdq": lambda: weights.lower_weights(job.prepared(opset).model, rules, bits),
    }
    return [Recipe(f"weight-only int{bits}", "weight-only", f"int{bits}", opset, "", forms[rules.form])]


def _half(wanted: half.Half) -> Callable[[Job, Choices, bool], list[Recipe]]:
    def make(job: Job, choices: Choices, every: bool) -> list[Recipe]:
        if every and wanted not in job.rules.halves:
            return []
        opset = half.OPSETS[wanted]
        return [
            Recipe(
                wanted, wanted, wanted, opset, "",
                lambda: half.lower_half(job.prepared(opset).model, wanted, record=job.calibrated),
            )
        ]  # fmt: skip

    return make


_METHODS: Mapping[str, Callable[[Job, Choices, bool], list[Recipe]]] = {
    "static": _static,
    "dynamic": _dynamic,
    "weight-only": _weight_only,
    "float16": _half("float16"),
    "bfloat16": _half("bfloat16"),
}
