"""The part of onnx.proto that decides how a file is walked: which field holds which message, which one text.

Source: onnx/onnx.proto of ONNX 1.23 (field numbers and the documented layout of TensorProto's data fields).
"""

from __future__ import annotations

from collections.abc import Mapping

# message: {field number: message it holds}.
MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 8: "opset", 14: "entry", 20: "training", 25: "function"},
    "graph": {
        1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 14: "annotation", 15: "sparse", 16: "entry",
    },
    "function": {7: "node", 9: "opset", 11: "attribute", 12: "value", 14: "entry"},
    "training": {1: "graph", 2: "graph", 3: "entry", 4: "entry"},
    "node": {5: "attribute", 9: "entry"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 14: "type", 15: "type", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry", 16: "entry"},
    "value": {2: "type", 4: "entry"},
    "type": {1: "tensor_type", 4: "holder", 5: "map", 8: "tensor_type", 9: "holder"},
    "tensor_type": {2: "shape"},
    "holder": {1: "type"},
    "map": {2: "type"},
    "shape": {1: "dim"},
    "dim": {},
    "annotation": {2: "entry"},
    "opset": {},
    "entry": {},
}  # fmt: skip

# message: numbers of its fields that are text, which has to be UTF-8.
TEXTS: Mapping[str, frozenset[int]] = {
    "model": frozenset({2, 3, 4, 6}),
    "graph": frozenset({2, 10}),
    "function": frozenset({1, 4, 5, 6, 8, 10, 13}),
    "training": frozenset(),
    "node": frozenset({1, 2, 3, 4, 6, 7, 8}),
    "attribute": frozenset({1, 13, 21}),
    "sparse": frozenset(),
    "tensor": frozenset({8, 12}),
    "value": frozenset({1, 3}),
    "type": frozenset({6}),
    "tensor_type": frozenset(),
    "holder": frozenset(),
    "map": frozenset(),
    "shape": frozenset(),
    "dim": frozenset({2, 3}),
    "annotation": frozenset({1}),
    "opset": frozenset({1}),
    "entry": frozenset({1, 2}),
}

# Bits of one element, by TensorProto.DataType; text (8) has no size.
BITS: Mapping[int, int] = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
TEXT_TYPE = 8


class Tensor:
    """Field numbers of TensorProto."""

    DIMS, TYPE, SEGMENT, FLOATS, INT32S, STRINGS, INT64S, NAME = 1, 2, 3, 4, 5, 6, 7, 8
    RAW, DOUBLES, UINT64S, EXTERNAL, LOCATION = 9, 10, 11, 13, 14


# Of each element type: the data field that may hold it, and entries of that field per element.
TYPED: Mapping[int, tuple[int, int]] = {
    1: (Tensor.FLOATS, 1), 14: (Tensor.FLOATS, 2), 11: (Tensor.DOUBLES, 1), 15: (Tensor.DOUBLES, 2),
    7: (Tensor.INT64S, 1), 12: (Tensor.UINT64S, 1), 13: (Tensor.UINT64S, 1), TEXT_TYPE: (Tensor.STRINGS, 1),
    **dict.fromkeys((2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26), (Tensor.INT32S, 1)),
}  # fmt: skip
# Width of a field's fixed-size entries; the others hold varints.
ENTRY_BYTES: Mapping[int, int] = {Tensor.FLOATS: 4, Tensor.DOUBLES: 8}
