"""Build the end of a model's preprocessing into its graph, so that it takes pictures as they were decoded.

Only steps that operators compute as numpy does are built in (layout, channels, cast, scale, normalisation, limits);
resizing, cropping and tokenizing stay outside, where the runtime applies them. The result is run beside numpy's
preprocessing and the model that it came from, at several inputs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir

from toolkit.errors import NotApplicable, ParityError
from toolkit.files import atomic_folder
from toolkit.graph.edit import Editor
from toolkit.graph.facts import true_inputs
from toolkit.graph.files import load_model, save_model
from toolkit.preprocess import Cast, Channels, Clip, InputSteps, Layout, Normalize, Preprocessing, Scale, Step
from toolkit.providers.session import Session
from toolkit.runtime.loader import load
from toolkit.tensors import Array, complete_dims
from toolkit.verifier.metrics import compare_arrays
from toolkit.verifier.tolerances import judge, tolerance_for

KEY = "toolkit.preprocessing"
_CHANNELS = 3
# Batches of pictures that the fused model is compared at.
_BATCHES = (1, 2, 5)


class FuseReport(msgspec.Struct, frozen=True):
    """What was built in, by input, and what the runtime still does; ``worst`` is the largest error, of the peak."""

    built_in: dict[str, tuple[str, ...]]
    outside: Preprocessing | None
    worst: float
    inputs_compared: int


class _Shape(msgspec.Struct):
    """A picture's shape on its way backwards through the steps: sizes or names, leading axis first."""

    dims: list[int | str]


def fuse_preprocessing(
    model: str | os.PathLike[str], output: str | os.PathLike[str], preprocessing: Preprocessing | None = None
) -> FuseReport:
    """Write ``model`` with the end of its preprocessing built in: uint8 pictures in, normalisation inside.

    Args:
        model: an ONNX file.
        output: where the new one is written, if it computes the same.
        preprocessing: of the model; by default what its metadata records.

    Raises:
        NotApplicable: there is no preprocessing, or none of its last steps can be built in.
        ParityError: the fused model answers otherwise than numpy's preprocessing and the model do.
    """
    graph = load_model(model)
    recorded = preprocessing or _recorded(graph, model)
    editor = Editor(graph)
    built: dict[str, tuple[str, ...]] = {}
    left: list[InputSteps] = []
    for item in recorded.inputs:
        value = next((value for value in true_inputs(graph) if value.name == item.input), None)
        first = len(item.steps) if value is None else _first_inside(item.steps)
        if value is not None and first < len(item.steps):
            _build_in(editor, value, item.steps[first:])
            built[item.input] = tuple(str(step.__struct_config__.tag) for step in item.steps[first:])
        rest = msgspec.structs.replace(item, steps=item.steps[:first])
        if rest.steps or rest.source:
            left.append(rest)
    if not built:
        raise NotApplicable("none of the last steps of the preprocessing can be built into the graph", where=model)
    outside = msgspec.structs.replace(recorded, inputs=tuple(left)) if left else None
    _record(graph, outside)
    with atomic_folder(output) as scratch:
        fused = scratch / Path(output).name
        save_model(graph, fused)
        worst, count = _compare(Path(model), fused, recorded, tuple(built), {item.input: item for item in left})
    return FuseReport(built, outside, worst, count)


def _recorded(graph: ir.Model, model: object) -> Preprocessing:
    text = graph.metadata_props.get(KEY)
    if not text:
        raise NotApplicable("the model records no preprocessing", where=model)
    return Preprocessing.from_json(text, where=model)


def _record(graph: ir.Model, outside: Preprocessing | None) -> None:
    if outside is None:
        graph.metadata_props.pop(KEY, None)
    else:
        graph.metadata_props[KEY] = outside.to_json()


def _first_inside(steps: Sequence[Step]) -> int:
    """Index of the first of the last steps that can all be built in."""
    first = len(steps)
    while first and type(steps[first - 1]) in _BUILDERS:
        first -= 1
    return first


def _build_in(editor: Editor, value: ir.Value, steps: Sequence[Step]) -> None:
    """Make ``value``, an input, a uint8 picture, with ``steps`` between it and what read it."""
    graph = editor.model.graph
    readers = [(node, index) for node, index in value.uses()]
    # In front of all nodes, so that subgraphs may read it too.
    anchor = next(iter(graph), None)
    if anchor is None or value.is_graph_output():
        raise NotApplicable("the model hands its input out as it is", got=value.name)
    name = value.name or ""
    shape = _Shape([dim if isinstance(dim, int) else str(dim.value) for dim in value.shape or ()])
    for step in reversed(steps):
        _before(step, shape)
    raw = ir.Value(name=f"{name}__raw", type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape(shape.dims))
    current, dtype = raw, np.dtype(np.uint8)
    for step in steps:
        current, dtype = _BUILDERS[type(step)](editor, anchor, current, dtype, step)
    wanted = value.dtype
    if wanted is not None and ir.DataType.from_numpy(dtype) != wanted:
        current = _cast(editor, anchor, current, wanted)
    for node, index in readers:
        node.replace_input_with(index, current)
    position = graph.inputs.index(value)
    graph.inputs[position] = raw
    value.name = editor.fresh(f"{name}__unused")
    raw.name = name


def _before(step: Step, shape: _Shape) -> None:
    """What ``shape`` was before ``step`` made it."""
    if isinstance(step, Layout):
        if len(shape.dims) != len(step.to):
            raise NotApplicable("the layout step does not fit the model's input", got=shape.dims, expected=step.to)
        by_letter = dict(zip(step.to, shape.dims, strict=True))
        shape.dims = [by_letter[letter] for letter in step.source]
    elif isinstance(step, Channels) and shape.dims:
        shape.dims[-1] = 1 if max(step.order) == 0 else _CHANNELS


Built = tuple[ir.Value, np.dtype[Any]]


def _cast(editor: Editor, anchor: ir.Node, value: ir.Value, to: ir.DataType) -> ir.Value:
    return editor.before(anchor, "Cast", [value], {"to": int(to)}, name="preprocessing_cast")


def _as_float(editor: Editor, anchor: ir.Node, value: ir.Value, dtype: np.dtype[Any]) -> ir.Value:
    return value if dtype == np.float32 else _cast(editor, anchor, value, ir.DataType.FLOAT)


def _arithmetic(editor: Editor, anchor: ir.Node, op: str, value: ir.Value, number: Array) -> ir.Value:
    constant = editor.constant(np.asarray(number, np.float32), f"preprocessing_{op.lower()}_by", anchor)
    return editor.before(anchor, op, [value, constant], name=f"preprocessing_{op.lower()}")


def _scale(editor: Editor, anchor: ir.Node, value: ir.Value, dtype: np.dtype[Any], step: Scale) -> Built:
    value = _as_float(editor, anchor, value, dtype)
    value = _arithmetic(editor, anchor, "Mul", value, np.asarray(step.factor))
    return _arithmetic(editor, anchor, "Add", value, np.asarray(step.offset)), np.dtype(np.float32)


def _normalize(editor: Editor, anchor: ir.Node, value: ir.Value, dtype: np.dtype[Any], step: Normalize) -> Built:
    value = _as_float(editor, anchor, value, dtype)
    # A picture's axes after the one that has the means: 2 behind channels-first, none behind channels-last.
    behind = (4 - 1 - step.axis) % 4 if len(step.mean) > 1 else 0
    shape = (-1, *[1] * behind) if len(step.mean) > 1 else ()
    mean, std = (np.array(numbers, np.float32).reshape(shape) for numbers in (step.mean, step.std))
    value = _arithmetic(editor, anchor, "Sub", value, mean)
    return _arithmetic(editor, anchor, "Div", value, std), np.dtype(np.float32)


def _layout(editor: Editor, anchor: ir.Node, value: ir.Value, dtype: np.dtype[Any], step: Layout) -> Built:
    order = [step.source.index(letter) for letter in step.to if letter in step.source]
    value = editor.before(anchor, "Transpose", [value], {"perm": order}, name="preprocessing_layout")
    if new := [axis for axis, letter in enumerate(step.to) if letter not in step.source]:
        axes = editor.constant(np.array(new, np.int64), "preprocessing_axes", anchor)
        value = editor.before(anchor, "Unsqueeze", [value, axes], name="preprocessing_axis")
    return value, dtype


def _channels(editor: Editor, anchor: ir.Node, value: ir.Value, dtype: np.dtype[Any], step: Channels) -> Built:
    order = editor.constant(np.array(step.order, np.int64), "preprocessing_order", anchor)
    return editor.before(anchor, "Gather", [value, order], {"axis": -1}, name="preprocessing_channels"), dtype


def _clip(editor: Editor, anchor: ir.Node, value: ir.Value, dtype: np.dtype[Any], step: Clip) -> Built:
    limits = [
        editor.constant(np.asarray(limit).astype(dtype), "preprocessing_limit", anchor)
        for limit in (step.low, step.high)
    ]
    return editor.before(anchor, "Clip", [value, *limits], name="preprocessing_clip"), dtype


def _change_type(editor: Editor, anchor: ir.Node, value: ir.Value, dtype: np.dtype[Any], step: Cast) -> Built:
    wanted = np.dtype(step.dtype)
    return _cast(editor, anchor, value, ir.DataType.from_numpy(wanted)), wanted


# Steps that operators compute as numpy does. Not here: what resamples, cuts or pads by sizes that are not known.
_BUILDERS: Mapping[type, Callable[[Editor, ir.Node, ir.Value, np.dtype[Any], Any], Built]] = {
    Cast: _change_type,
    Channels: _channels,
    Clip: _clip,
    Layout: _layout,
    Normalize: _normalize,
    Scale: _scale,
}


def _compare(
    model: Path, fused: Path, whole: Preprocessing, built: Sequence[str], left: Mapping[str, InputSteps]
) -> tuple[float, int]:
    """Run both ways over pictures of every kind of content; the largest error, and how many batches were compared."""
    worst, count = 0.0, 0
    with load(model, "cpu") as plain, load(fused, "cpu", verify="always") as quick:
        tolerance = tolerance_for("float32")
        for batch in _batches(quick, built):
            feeds = {item.input: _inside_steps(item, left).apply(batch[item.input]) for item in whole.inputs}
            wanted = plain({**batch, **feeds})
            for name, answer in quick(batch).items():
                metrics = compare_arrays(wanted[name], answer, name)
                if why := judge(metrics, tolerance):
                    raise ParityError("the fused model answers otherwise", where=model, got=f"{name}: {why}")
                worst = max(worst, metrics.max_abs / metrics.peak if metrics.peak else 0.0)
            count += 1
    return worst, count


def _inside_steps(item: InputSteps, left: Mapping[str, InputSteps]) -> InputSteps:
    """The steps that were built in, for an input that comes as they take it."""
    done = len(left[item.input].steps) if item.input in left else 0
    return msgspec.structs.replace(item, steps=item.steps[done:], source="")


def _batches(session: Session, built: Sequence[str]) -> list[dict[str, Array]]:
    """Black, white, ramps and noise, at several batch sizes."""
    generator = np.random.default_rng(0)
    found = []
    for count in _BATCHES:
        sizes = complete_dims(session.inputs)
        shapes = {
            spec.name: tuple(
                count if axis == 0 and isinstance(dim, str) else sizes[dim] if isinstance(dim, str) else dim
                for axis, dim in enumerate(spec.shape or ())
            )
            for spec in session.inputs
        }
        for fill in (0, 255, "ramp", "noise"):
            found.append(
                {spec.name: _picture(shapes[spec.name], spec.dtype, fill, generator) for spec in session.inputs}
            )
    return found


def _picture(shape: tuple[int, ...], dtype: str, fill: int | str, generator: np.random.Generator) -> Array:
    if dtype != "uint8":  # an input that is not a picture
        return np.asarray(generator.standard_normal(shape)).astype(dtype)
    if fill == "noise":
        return generator.integers(0, 256, shape, dtype=np.uint8)
    if fill == "ramp":
        return (np.arange(int(np.prod(shape))) % 256).astype(np.uint8).reshape(shape)
    return np.full(shape, fill, np.uint8)
