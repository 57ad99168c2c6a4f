"""Names, types and shapes are read, filled and checked the same way everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InvalidInput, UsageError
from toolkit.tensors import (
    DTYPES,
    FLOATS,
    INTEGERS,
    TensorSpec,
    batch_dim,
    check_feeds,
    complete_dims,
    concrete_shape,
    example_inputs,
    nearest,
    numpy_dtype,
    parse_dims,
    parse_spec,
)

IDS = TensorSpec("ids", "int64", ("batch", "seq"), (0, 511))
MASK = TensorSpec("attention_mask", "int64", ("batch", "seq"))
PIXELS = TensorSpec("pixels", "float32", ("batch", 3, "height", "width"))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("x:float32[]", TensorSpec("x", "float32", ())),
        ("pixel_values:float32[batch,3,224,224]", TensorSpec("pixel_values", "float32", ("batch", 3, 224, 224))),
        ("ids:int64[batch, seq]=0..511", IDS),
        (" x:uint8[1]=-3..2.5 ", TensorSpec("x", "uint8", (1,), (-3, 2.5))),
        ("a.b/c:bool[n]", TensorSpec("a.b/c", "bool", ("n",))),
    ],
)
def test_descriptions_are_read(text: str, spec: TensorSpec) -> None:
    assert parse_spec(text) == spec


names = st.from_regex(r"[a-z_][a-z0-9_./]{0,8}", fullmatch=True)
dims = st.lists(st.one_of(st.integers(1, 4096), st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True)), max_size=5)


@given(names, st.sampled_from(DTYPES), dims)
def test_what_a_spec_prints_is_read_back(name: str, dtype: str, shape: list[int | str]) -> None:
    spec = TensorSpec(name, dtype, tuple(shape))
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", "NAME:DTYPE[DIM,DIM,…]"),
        ("x:float32", "NAME:DTYPE[DIM,DIM,…]"),
        ("x:flaot32[1]", "'float32' (did you mean that?)"),
        ("x:float32[0]", "a dim is a positive size or a name; got '0'"),
        ("x:float32[-1]", "a dim is a positive size or a name; got '-1'"),
        ("x:float32[a b]", "a dim is a positive size or a name"),
        ("x:float32[1,]", "a dim is a positive size or a name; got ''"),
    ],
)
def test_descriptions_that_cannot_be_read(text: str, expected: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_spec(text)
    assert expected in str(raised.value)


def test_dims_are_read() -> None:
    assert parse_dims(["batch=8", " seq = 64 "]) == {"batch": 8, "seq": 64}
    for wrong in ("batch", "batch=", "=3", "batch=0", "batch=-1", "batch=1.5", "batch=x"):
        with pytest.raises(UsageError, match="NAME=SIZE"):
            parse_dims([wrong])


def test_the_nearest_name_is_suggested() -> None:
    assert nearest("seqq", ["batch", "seq"]) == "'seq' (did you mean that?), or one of: batch, seq"
    assert nearest("PIXELS", ["pixels"]) == "'pixels' (did you mean that?), or one of: pixels"
    assert nearest("zzz", ["batch", "seq"]) == "one of: batch, seq"


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool", "complex64"])
def test_every_type_has_a_numpy_type(dtype: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    assert numpy_dtype(dtype).name == dtype
    assert numpy_dtype("string") == np.dtype(object)


def test_dims_get_sizes_that_fit_their_kind() -> None:
    assert complete_dims([PIXELS]) == {"batch": 1, "height": 224, "width": 224}
    assert complete_dims([IDS, MASK], {"seq": 64}) == {"batch": 1, "seq": 64}
    assert complete_dims([TensorSpec("x", "float32", (4,))]) == {}
    assert batch_dim([TensorSpec("s", "float32", (4,)), PIXELS]) == "batch"
    assert concrete_shape(PIXELS, {"batch": 2, "height": 8, "width": 9}) == (2, 3, 8, 9)


def test_a_dim_that_no_input_has() -> None:
    with pytest.raises(UsageError, match="no such dim; got sequence; expected 'seq' \\(did you mean that\\?\\)"):
        complete_dims([IDS], {"sequence": 3})
    with pytest.raises(UsageError, match="every dim of this model is fixed"):
        complete_dims([TensorSpec("x", "float32", (4,))], {"batch": 3})


def test_examples_are_the_same_each_time_and_lie_in_their_range() -> None:
    first, second = example_inputs([IDS, MASK, PIXELS]), example_inputs([IDS, MASK, PIXELS])
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    assert first["ids"].min() >= 0
    assert first["ids"].max() <= 511
    assert (first["attention_mask"] == 1).all()
    assert (first["ids"] != example_inputs([IDS, MASK, PIXELS], seed=1)["ids"]).any()
    assert set(np.unique(example_inputs([TensorSpec("n", "int64", (50,))])["n"])) == {0, 1}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int64", "bool", "string"])
def test_examples_are_accepted_as_feeds(dtype: str) -> None:
    specs = [TensorSpec("x", dtype, ("n", 3)), TensorSpec("s", dtype, ())]
    assert check_feeds(specs, example_inputs(specs, {"n": 5}), "m") == {"n": 5}


def test_a_dim_has_one_size_in_all_inputs() -> None:
    feeds = {"ids": np.zeros((2, 5), np.int64), "attention_mask": np.zeros((2, 4), np.int64)}
    with pytest.raises(InvalidInput) as raised:
        check_feeds([IDS, MASK], feeds, "bert.onnx")
    assert str(raised.value) == (
        "bert.onnx: input 'attention_mask': wrong size in axis 1; got shape [2, 4]; "
        "expected seq=5 in attention_mask:int64[batch,seq]"
    )


def test_an_input_of_unknown_rank_takes_any() -> None:
    assert check_feeds([TensorSpec("x", "float32", None)], {"x": np.zeros((2, 3), np.float32)}, "m") == {}


def test_foreign_byte_order_is_refused() -> None:
    with pytest.raises(InvalidInput, match="wrong byte order; got >f4"):
        check_feeds([TensorSpec("x", "float32", (2,))], {"x": np.zeros(2, ">f4")}, "m")
