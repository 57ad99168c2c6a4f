from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.building import build, normal, run
from toolkit.errors import UsageError
from toolkit.graph.facts import facts
from toolkit.graph.shapes import fix_dims, infer, rename_dims

POOL = "pool (float[batch, 3, height, width] x) => (float[batch, 3, h, w] y) { y = MaxPool<kernel_shape=[2, 2]>(x) }"


def test_shapes_follow_the_sizes_that_are_given() -> None:
    model = build(POOL)
    shapes = infer(model, {"batch": 2, "height": 9, "width": 5})
    assert shapes[model.graph.outputs[0]].sizes == (2, 3, 8, 4)
    assert infer(model)[model.graph.outputs[0]].sizes is None
    assert facts(model).dynamic_dims == ("batch", "height", "width"), "the model itself stays as it is"


def test_shapes_inside_branches_that_read_constants_from_outside() -> None:
    model = build(
        """g (bool c, float[2, 6] x) => (float[a, b] y) {
            shape = Constant<value = int64[2] {4, 3}>()
            y = If (c) <then_branch = one () => (float[k, l] t) { t = Reshape(x, shape) },
                        else_branch = two () => (float[k, l] e) { e = Reshape(x, w) }>
        }""",
        weights={"w": [3, 4]},
    )
    by_name = {value.name: found.sizes for value, found in infer(model).items()}
    assert by_name["e"] == (3, 4)


def test_shapes_get_past_packed_weights() -> None:
    model = build(
        """g (float[batch, seq, 32] x) => (float[a, b, c] y) {
            p = com.microsoft.MatMulNBits<K=32, N=8, bits=4, block_size=32>(x, w, s)
            q = com.microsoft.Gelu(p) y = MatMul(q, k)
        }""",
        weights={"w": np.zeros((8, 1, 16), np.uint8), "s": np.ones(8, np.float32), "k": normal(8, 5)},
        imports=', "com.microsoft" : 1',
    )
    assert infer(model, {"batch": 2, "seq": 3})[model.graph.outputs[0]].sizes == (2, 3, 5)
    assert [node.domain for node in model.graph] == ["com.microsoft", "com.microsoft", ""]


def test_a_wrong_annotation_is_not_believed_when_asked() -> None:
    text = "g (float[batch, 4] x) => (float[b, c] y) <float[1, 4] t> { t = Relu(x) y = Relu(t) }"
    model = build(text)
    believed = {value.name: str(found.shape) for value, found in infer(model).items()}
    assert believed["t"] == "[1,4]"
    derived = {value.name: str(found.shape) for value, found in infer(model, annotations=False).items()}
    assert derived["t"] == "[batch,4]"


def test_fixing_a_dim_fixes_it_everywhere() -> None:
    model = build("g (float[batch, n] x, float[batch] z) => (float[batch, n] y) { y = Relu(x) }")
    fixed = facts(fix_dims(model, {"batch": 4}))
    assert [spec.shape for spec in (*fixed.inputs, *fixed.outputs)] == [(4, "n"), (4,), (4, "n")]


def test_a_dim_without_a_name_goes_by_its_tensor_and_axis() -> None:
    model = build("g (float[?, ?] x) => (float[?, ?] y) { y = Relu(x) }")
    assert facts(fix_dims(model, {"x_dim1": 7})).inputs[0].shape == ("x_dim0", 7)
    assert facts(rename_dims(model, {"x_dim0": "batch"})).inputs[0].shape == ("batch", "x_dim1")


def test_dims_may_be_called_what_is_no_expression() -> None:
    model = build("g (float[batch, n] x) => (float[batch, n] y) { y = Relu(x) }")
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([ir.SymbolicDim("b a<t>ch"), ir.SymbolicDim("n")])
    fixed = facts(fix_dims(model, {"b a<t>ch": 3}))
    assert [spec.shape for spec in (*fixed.inputs, *fixed.outputs)] == [(3, "n"), (3, "n")]


def test_renaming_keeps_the_numbers_and_refuses_to_equate() -> None:
    model = build(POOL)
    renamed = rename_dims(model, {"batch": "n"})
    assert facts(renamed).inputs[0].shape == ("n", 3, "height", "width")
    x = normal(2, 3, 5, 6)
    assert (run(renamed, x=x)[0] == run(model, x=x)[0]).all()
    for names in ({"batch": "height"}, {"batch": "two words"}, {"batch": "k", "height": "k"}):
        with pytest.raises(UsageError, match="taken, or is not a name"):
            rename_dims(model, names)


@pytest.mark.parametrize("change", [fix_dims, rename_dims])
def test_an_unknown_dim_names_the_nearest(change: object) -> None:
    with pytest.raises(UsageError, match="did you mean") as caught:
        change(build(POOL), {"batsch": 2 if change is fix_dims else "n"})  # type: ignore[operator]  # one of two functions
    assert "'batch'" in str(caught.value)
