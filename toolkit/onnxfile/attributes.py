"""Numbers in nodes that engines count with before they look at them: bounds that every sound model keeps.

OpenVINO 2026.4 writes past its buffers for a convolution with a negative pad: no error, and a crash later.
"""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.onnxfile.wire import BYTES, VARINT, Content, Field, fields, signed, varint

# A picture or text of 16 million positions is larger than any model's.
_MOST = 1 << 24
# attribute: the least it may be. Source: onnx/docs/Operators.md; where pads may be negative is in _CROPS.
_LEAST: Mapping[str, int] = {
    "pads": 0, "strides": 1, "dilations": 1, "kernel_shape": 1, "group": 1, "output_padding": 0, "output_shape": 0,
    "blocksize": 1, "block_size": 0, "hidden_size": 1, "num_heads": 0, "q_num_heads": 0, "kv_num_heads": 0,
    "num_outputs": 1, "num_groups": 1,
}  # fmt: skip
# Pads of these may be negative, which cuts.
_CROPS = frozenset({"Pad", "CenterCropPad"})
_NAME, _INT, _INTS = 1, 3, 8
_ATTRIBUTE = 5


def check_attributes(content: Content, node: Field, operator: str) -> None:
    """Check the attributes of a NodeProto.

    Raises:
        ValueError: naming the one that is out of bounds.
    """
    if operator in _CROPS:
        return
    for field in fields(content, node.start, node.end):
        if field.number == _ATTRIBUTE and field.wire == BYTES:
            _check(content, field, operator)


def _check(content: Content, attribute: Field, operator: str) -> None:
    parts = list(fields(content, attribute.start, attribute.end))
    name = next((part for part in parts if part.number == _NAME and part.wire == BYTES), None)
    least = None if name is None else _LEAST.get(content[name.start : name.end].decode())
    if name is None or least is None:
        return
    for value in (number for part in parts for number in _numbers(content, part)):
        if not least <= value <= _MOST:
            label = content[name.start : name.end].decode()
            raise ValueError(
                f"a node {operator[:80]} with {label} {value}, which is {least} to {_MOST} where it makes sense"
            )


def _numbers(content: Content, part: Field) -> list[int]:
    """The integers in a part of an AttributeProto: its one integer, or its list, packed or not."""
    if part.number not in (_INT, _INTS):
        return []
    if part.wire == VARINT:
        return [signed(part.value)]
    found, at = [], part.start
    while part.wire == BYTES and at < part.end:
        value, at = varint(content, at)
        found.append(signed(value))
    return found
