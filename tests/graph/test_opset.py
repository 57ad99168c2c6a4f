"""Every adapter is judged by numbers: what the old node meant, spelt out in numpy, against what runs now."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.graph.building import build, check, normal, reference, run, types
from toolkit.errors import InvalidModel, UsageError
from toolkit.graph.facts import facts
from toolkit.graph.opset import NEWEST_OPSET, upgrade
from toolkit.graph.opset_adapters import ADAPTERS

X = normal(2, 3, 4, 5)


def softmax(x: Any, axes: tuple[int, ...]) -> Any:
    shifted = np.exp(x - x.max(axes, keepdims=True))
    return shifted / shifted.sum(axes, keepdims=True)


# name: opset, graph, weights, what it means in numpy for x.
Meaning = tuple[int, str, dict[str, Any], Callable[[Any], Any]]
IMAGE = "g (float[2, 3, 4, 5] x) => (float[a, b, c, d] y)"
SCALE = normal(3, seed=1)
MEANT: dict[str, Meaning] = {
    "Add at an axis": (
        6, f"{IMAGE} {{ y = Add<axis=1, broadcast=1>(x, w) }}", {"w": SCALE}, lambda x: x + SCALE[:, None, None]
    ),
    "Add at the end": (6, f"{IMAGE} {{ y = Add<broadcast=1>(x, w) }}", {"w": X[0, 0]}, lambda x: x + X[0, 0]),
    "Mul behind Add": (
        6,
        f"{IMAGE} {{ t = Add<axis=1, broadcast=1>(x, w) y = Mul<axis=-3, broadcast=1>(t, w) }}",
        {"w": SCALE},
        lambda x: (x + SCALE[:, None, None]) * SCALE[:, None, None],
    ),
    "Gemm broadcast": (
        6,
        "g (float[2, 3] x) => (float[2, 5] y) { y = Gemm<broadcast=1>(x, w, b) }",
        {"w": normal(3, 5), "b": normal(5)},
        lambda x: x @ normal(3, 5) + normal(5),
    ),
    "PRelu per channel": (
        6,
        f"{IMAGE} {{ y = PRelu(x, w) }}",
        {"w": SCALE},
        lambda x: np.where(x < 0, x * SCALE[:, None, None], x),
    ),
    "BatchNormalization in inference": (
        6,
        f"{IMAGE} {{ y = BatchNormalization<is_test=1, epsilon=0.001>(x, s, b, m, v) }}",
        {"s": SCALE, "b": normal(3, seed=2), "m": normal(3, seed=3), "v": np.abs(normal(3, seed=4))},
        lambda x: (
            (x - normal(3, seed=3)[:, None, None]) / np.sqrt(np.abs(normal(3, seed=4)) + 0.001)[:, None, None]
            * SCALE[:, None, None] + normal(3, seed=2)[:, None, None]
        ),
    ),
    "Dropout in inference": (6, f"{IMAGE} {{ y = Dropout<is_test=1, ratio=0.3>(x) }}", {}, lambda x: x),
    "Reshape by attribute": (
        1, "g (float[2, 3, 4, 5] x) => (float[6, 20] y) { y = Reshape<shape=[6, 20]>(x) }", {},
        lambda x: x.reshape(6, 20),
    ),
    "Cast by name": (
        1, 'g (float[2, 3, 4, 5] x) => (double[2, 3, 4, 5] y) { y = Cast<to="DOUBLE">(x) }', {},
        lambda x: x.astype(np.float64),
    ),
    "Concat along its old default": (1, f"{IMAGE} {{ y = Concat(x, x) }}", {}, lambda x: np.concatenate([x, x], 1)),
    "Pad by paddings": (
        1,
        f"{IMAGE} {{ y = Pad<paddings=[0, 0, 1, 0, 0, 0, 0, 2], value=1.5>(x) }}",
        {},
        lambda x: np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 2)), constant_values=1.5),
    ),
    "Selu with its old constants": (
        1,
        f"{IMAGE} {{ y = Selu(x) }}",
        {},
        lambda x: 1.0507 * np.where(x > 0, x, 1.6732 * np.exp(x) - 1.6732),
    ),
    "Relu with consumed inputs": (1, f"{IMAGE} {{ y = Relu<consumed_inputs=[0]>(x) }}", {}, lambda x: np.maximum(x, 0)),
    "Upsample by factors": (
        1,
        f"{IMAGE} {{ y = Upsample<height_scale=2.0, width_scale=3.0>(x) }}",
        {},
        lambda x: x.repeat(2, 2).repeat(3, 3),
    ),
    "Upsample by scales": (
        7, f"{IMAGE} {{ y = Upsample<scales=[1.0, 1.0, 2.0, 2.0]>(x) }}", {}, lambda x: x.repeat(2, 2).repeat(2, 3)
    ),
    "Upsample by an input": (
        9,
        f"{IMAGE} {{ y = Upsample(x, w) }}",
        {"w": np.array([1, 1, 3, 1], np.float32)},
        lambda x: x.repeat(3, 2),
    ),
    "Slice by attributes": (
        9, f"{IMAGE} {{ y = Slice<axes=[1, 3], starts=[1, -3], ends=[3, 100]>(x) }}", {}, lambda x: x[:, 1:3, :, -3:]
    ),
    "Slice without axes": (9, f"{IMAGE} {{ y = Slice<starts=[1], ends=[2]>(x) }}", {}, lambda x: x[1:2]),
    "TopK by attribute": (
        9, f"{IMAGE} {{ y, i = TopK<k=2, axis=-1>(x) }}", {}, lambda x: -np.sort(-x, -1)[..., :2]
    ),
    "Resize without coordinates": (
        10,
        f"{IMAGE} {{ y = Resize(x, w) }}",
        {"w": np.array([1, 1, 2, 2], np.float32)},
        lambda x: x.repeat(2, 2).repeat(2, 3),
    ),
    "Pad by attributes": (
        10,
        f"{IMAGE} {{ y = Pad<pads=[0, 0, 1, 0, 0, 0, 0, 2], mode=\"reflect\">(x) }}",
        {},
        lambda x: np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 2)), mode="reflect"),
    ),
    "Clip by attributes": (10, f"{IMAGE} {{ y = Clip<min=-0.5, max=0.5>(x) }}", {}, lambda x: np.clip(x, -0.5, 0.5)),
    "Clip from below": (10, f"{IMAGE} {{ y = Clip<min=0.0>(x) }}", {}, lambda x: np.maximum(x, 0)),
    "Scatter": (
        9,
        f"{IMAGE} {{ y = Scatter<axis=3>(x, i, u) }}",
        {"i": np.zeros((2, 3, 4, 1), np.int64), "u": np.ones((2, 3, 4, 1), np.float32)},
        lambda x: np.concatenate([np.ones_like(x[..., :1]), x[..., 1:]], -1),
    ),
    "Dropout's ratio": (11, f"{IMAGE} {{ y = Dropout<ratio=0.5>(x) }}", {}, lambda x: x),
    "Softmax over several axes": (11, f"{IMAGE} {{ y = Softmax<axis=2>(x) }}", {}, lambda x: softmax(x, (2, 3))),
    "Softmax by default": (11, f"{IMAGE} {{ y = Softmax(x) }}", {}, lambda x: softmax(x, (1, 2, 3))),
    "LogSoftmax over the last axis": (
        11, f"{IMAGE} {{ y = LogSoftmax<axis=3>(x) }}", {}, lambda x: np.log(softmax(x, (3,)))
    ),
    "Squeeze and Unsqueeze": (
        11,
        f"{IMAGE} {{ t = Unsqueeze<axes=[0, 2]>(x) y = Squeeze<axes=[0, 2]>(t) }}",
        {},
        lambda x: x,
    ),
    "Split by attribute": (
        11, f"{IMAGE} {{ y, z = Split<axis=3, split=[2, 3]>(x) }}", {}, lambda x: x[..., :2]
    ),
    "Split in equal parts": (17, f"{IMAGE} {{ y, z = Split<axis=2>(x) }}", {}, lambda x: x[:, :, :2]),
    "ReduceSum by attribute": (
        11, f"{IMAGE} {{ y = ReduceSum<axes=[1, -1], keepdims=1>(x) }}", {}, lambda x: x.sum((1, 3), keepdims=True)
    ),
    "ReduceMean over everything": (
        17, f"{IMAGE} {{ y = ReduceMean<axes=[0, 1, 2, 3]>(x) }}", {}, lambda x: x.mean(keepdims=True)
    ),
    "ReduceMax by attribute": (
        17, f"{IMAGE} {{ y = ReduceMax<axes=[2], keepdims=1>(x) }}", {}, lambda x: x.max(2, keepdims=True)
    ),
    "GroupNormalization per group": (
        18,
        "g (float[2, 4, 5] x) => (float[2, 4, 5] y) { y = GroupNormalization<num_groups=2>(x, s, b) }",
        {"s": normal(2, seed=5), "b": normal(2, seed=6)},
        lambda x: (
            ((x.reshape(2, 2, -1) - x.reshape(2, 2, -1).mean(-1, keepdims=True))
             / np.sqrt(x.reshape(2, 2, -1).var(-1, keepdims=True) + 1e-5)).reshape(2, 4, 5)
            * normal(2, seed=5).repeat(2)[:, None] + normal(2, seed=6).repeat(2)[:, None]
        ),
    ),
    "DFT along its old default": (
        17,
        "g (float[2, 4, 5, 1] x) => (float[a, b, c, d] y) { y = DFT(x) }",
        {},
        lambda x: np.stack([np.fft.fft(x[..., 0], axis=1).real, np.fft.fft(x[..., 0], axis=1).imag], -1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MEANT)
def test_a_node_still_means_what_it_meant(name: str) -> None:
    opset, text, weights, meaning = MEANT[name]
    model = build(text, opset=opset, ir_version=3, weights=weights)
    shape = [int(dim) for dim in model.graph.inputs[0].shape]
    x = normal(*shape)
    for target in (17, 21, 23):
        if target <= opset:
            continue
        upgraded, notes = upgrade(model, target)
        check(upgraded)
        assert facts(upgraded).opset == target
        assert notes[0].startswith(f"opset {opset} to {target}: rewrote")
        np.testing.assert_allclose(run(upgraded, x=x)[0], meaning(x), rtol=1e-5, atol=1e-5)
    assert facts(model).opset == opset, "the model that was passed in stays as it is"


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_keeps_its_coordinates(mode: str) -> None:
    text = f'{IMAGE} {{ y = Resize<mode="{mode}">(x, w) }}'
    model = build(text, opset=10, ir_version=5, weights={"w": np.array([1, 1, 2.5, 1.5], np.float32)})
    np.testing.assert_allclose(run(upgrade(model, 18)[0], x=X)[0], run(model, x=X)[0], rtol=1e-6)


def test_grid_sample_and_roi_align_keep_their_meaning() -> None:
    grid = build(
        'g (float[1, 1, 4, 4] x, float[1, 3, 3, 2] g) => (float[1, 1, 3, 3] y) { y = GridSample<mode="bicubic">(x, g) }'
    )
    feeds = {"x": normal(1, 1, 4, 4), "g": np.tanh(normal(1, 3, 3, 2))}
    np.testing.assert_allclose(run(upgrade(grid, 20)[0], **feeds)[0], run(grid, **feeds)[0], rtol=1e-5)
    align = build(
        "g (float[1, 1, 8, 8] x) => (float[1, 1, 2, 2] y) { y = RoiAlign<output_height=2, output_width=2>(x, r, i) }",
        opset=15,
        weights={"r": np.array([[0.7, 0.9, 5.2, 6.1]], np.float32), "i": np.zeros(1, np.int64)},
    )
    upgraded = upgrade(align, 17)[0]
    attributes = next(iter(upgraded.graph)).attributes
    assert attributes.get_string("coordinate_transformation_mode") == "output_half_pixel"
    x = normal(1, 1, 8, 8)
    np.testing.assert_allclose(run(upgraded, x=x)[0], run(align, x=x)[0], rtol=1e-5)


def test_a_recurrent_node_loses_what_no_longer_exists() -> None:
    model = build(
        "g (float[5, 2, 3] x) => (float[a, b, c, d] y) { y = LSTM<hidden_size=4, output_sequence=1>(x, w, r) }",
        opset=6,
        ir_version=3,
        weights={"w": normal(1, 16, 3), "r": normal(1, 16, 4, seed=1)},
    )
    upgraded, _ = upgrade(model, 17)
    check(upgraded)
    x = normal(5, 2, 3)
    np.testing.assert_allclose(run(upgraded, x=x)[0], reference(upgraded, x=x)[0], atol=1e-5)


def test_branches_and_functions_are_upgraded_too() -> None:
    message = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 10, "own" : 1]>
        g (bool c, float[2, 3] x) => (float[2, 1, 3] y) {
            y = If (c) <then_branch = one () => (float[2, 1, 3] a) { a = Unsqueeze<axes=[1]>(x) },
                        else_branch = two () => (float[2, 1, 3] b) { b = own.Widen(x) }>
        }
        <domain: "own", opset_import: ["" : 10]>
        Widen (x) => (y) { t = Clip<min=0.0>(x) y = Unsqueeze<axes=[1]>(t) }
    """)
    model = ir.serde.deserialize_model(message)
    upgraded, notes = upgrade(model, 17)
    check(upgraded)
    assert notes == ("opset 10 to 17: rewrote 1 Clip, 2 Unsqueeze",)
    x = normal(2, 3)
    np.testing.assert_array_equal(run(upgraded, c=np.array(True), x=x)[0], x[:, None])
    np.testing.assert_array_equal(run(upgraded, c=np.array(False), x=x)[0], np.maximum(x, 0)[:, None])


def test_training_mode_is_assumed_away_and_said() -> None:
    model = build("g (float[2, 3] x) => (float[2, 3] y) { y = Dropout<ratio=0.5>(x) }", opset=6, ir_version=3)
    _, notes = upgrade(model, 17)
    assert "training mode; inference is assumed" in notes[1]


@pytest.mark.parametrize(
    ("opset", "body", "reason"),
    [
        (6, "y = Add<axis=1, broadcast=1>(t, w) t = com.x.Odd(x)", "rank"),
        (8, "y = BatchNormalization<spatial=0>(x, w, w, w, w)", "statistics per element"),
        (9, "d, m = Dropout(x) y = Cast<to=1>(m)", "mask"),
        (13, "y, m, v = BatchNormalization(x, w, w, w, w) z = Add(m, v)", "statistics, as in training"),
        (11, 'y = Resize<coordinate_transformation_mode="tf_half_pixel_for_nn">(x, w, w)', "tf_half_pixel_for_nn"),
    ],
)
def test_what_has_no_equivalent_is_refused_in_one_line(opset: int, body: str, reason: str) -> None:
    first, second = body.split(" t = ") if " t = " in body else (body, "")
    body = f"t = {second} {first}" if second else body
    text = f"g (float[2, 3, 4, 4] x) => (float[a, b, c, d] y) {{ {body} }}"
    model = build(text, opset=opset, ir_version=6, weights={"w": normal(3)}, imports=', "com.x" : 1')
    with pytest.raises(InvalidModel) as caught:
        upgrade(model, 17)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_versions_that_cannot_be() -> None:
    model = build(f"{IMAGE} {{ y = Relu(x) }}", opset=13)
    assert upgrade(model, 13) == (model, ())
    with pytest.raises(UsageError, match="newer"):
        upgrade(model, 12)
    with pytest.raises(UsageError, match="no such opset"):
        upgrade(model, NEWEST_OPSET + 1)


def test_the_ir_version_follows_and_weights_stay_named() -> None:
    model = build(
        "g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }", opset=6, ir_version=3, weights={"w": normal(4, 3)}
    )
    upgraded, _ = upgrade(model, 21)
    assert upgraded.ir_version == 10
    assert list(upgraded.graph.initializers) == ["w"]
    assert types(upgraded) == ["MatMul"]


# Changes of a schema that need no entry: optional things were added whose default is the old meaning, or a bound on the
# number of outputs moved. Whatever onnx adds next has to be put here or in the table.
COMPATIBLE = {
    ("GRU", 3),  # a typing mistake in a default, and outputs that became optional
    ("Loop", 11),  # one required input less
    ("GatherND", 12),
    ("Clip", 6),  # the largest floats became the default bounds: no bound at all
    ("Split", 13), ("Squeeze", 13),
}  # fmt: skip


def breaking_changes() -> dict[tuple[str, int], str]:
    """(operator, opset): what broke, from the history of all schemas that onnx knows."""
    history: dict[str, list[Any]] = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history[schema.name].append(schema)
    found = {}
    for name, schemas in history.items():
        schemas.sort(key=lambda schema: schema.since_version)
        for old, new in itertools.pairwise(schemas):
            if reasons := list(_reasons(old, new)):
                found[name, new.since_version] = "; ".join(reasons)
    return found


def _reasons(old: Any, new: Any) -> Any:
    if new.deprecated and not old.deprecated:
        yield "deprecated"
        return
    for name, attribute in old.attributes.items():
        if name not in new.attributes:
            yield f"attribute {name} is gone"
        elif attribute.type != new.attributes[name].type:
            yield f"attribute {name} has another type"
        elif str(attribute.default_value) != str(new.attributes[name].default_value):
            yield f"attribute {name} has another default"
        elif new.attributes[name].required and not attribute.required:
            yield f"attribute {name} is required now"
    if any(attribute.required for name, attribute in new.attributes.items() if name not in old.attributes):
        yield "a new attribute is required"
    if new.min_input > old.min_input or new.max_input < old.max_input:
        yield f"{old.min_input} to {old.max_input} inputs became {new.min_input} to {new.max_input}"
    if new.max_output < old.max_output:
        yield "outputs are gone"


def missing_entries(table: Any) -> dict[tuple[str, int], str]:
    found = breaking_changes()
    gone = {key: why for key, why in found.items() if key not in table and key not in COMPATIBLE}
    return {
        key: why
        for key, why in gone.items()
        if not (key[1] == 6 and ("*", 6) in table and why == "attribute consumed_inputs is gone")
    }


def test_every_breaking_change_that_onnx_knows_has_an_adapter() -> None:
    assert missing_entries(ADAPTERS) == {}


def test_the_search_for_breaking_changes_finds_them() -> None:
    fewer = {key: value for key, value in ADAPTERS.items() if key not in {("Clip", 11), ("*", 6), ("Concat", 4)}}
    assert {("Clip", 11), ("Relu", 6), ("Concat", 4)} <= set(missing_entries(fewer))
