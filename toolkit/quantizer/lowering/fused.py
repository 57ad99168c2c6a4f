"""ONNX Runtime's own fused operators, written out where its optimizer does not find them by itself.

- MatMulIntegerToFloat takes a bias, but the transformers that make it of Q/DQ pairs leave the Add behind it
  (qdq_transformer/selectors_actions/qdq_actions.cc). ViT-S/16: 6 % of the whole model; BERT: 3 %.
- MultiHeadAttention moves no heads about and never writes the scores down where there is no mask
  (contrib_ops/cpu/bert/multihead_attention.cc). Its fusion is a script of ONNX Runtime's that knows architectures by
  name; here it is the arithmetic that is recognized, with every dim it rests on known. ViT-S/16: 5 %; BERT: 3 %.
- A residual Add in front of a LayerNormalization becomes the Sum it is: ONNX Runtime fuses the two into
  SkipLayerNormalization, whose loops (contrib_ops/cpu/skip_layer_norm.cc) take twice as long as both apart. BERT: 9 %.

Files with these operators open on ONNX Runtime alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from toolkit.graph.edit import Editor, replace
from toolkit.graph.equal_sizes import EqualSizes, Size
from toolkit.quantizer.lowering.correction import BiasHome, bias_home
from toolkit.quantizer.plan import Plan, constant

DOMAIN = "com.microsoft"
_HEADS_FIRST = (0, 2, 1, 3)
_KEYS_TURNED = (0, 2, 3, 1)
_SOFTMAX_OF_ONE_AXIS = 13  # the opset; before, it was of all from its axis on, the second by default


class Product(NamedTuple):
    """A MatMul that gets Q/DQ pairs, and the constant that is added behind it."""

    node: ir.Node
    home: BiasHome


def biased_products(plan: Plan) -> tuple[Product, ...]:
    """MatMuls of ``plan`` with a constant bias behind them; asked before anything is written."""
    found = ((placed.node, bias_home(placed.node)) for placed in plan.nodes if placed.node.op_type == "MatMul")
    return tuple(
        Product(node, home)
        for node, home in found
        if home is not None and (weight := constant(node.inputs[1])) is not None and len(weight.shape) == 2
    )


def may_fuse(model: ir.Model) -> bool:
    """Whether there is anything in ``model`` that :func:`fuse` looks at."""
    return any(
        (node.op_type == "MatMul" and bias_home(node) is not None)
        or (node.op_type == "Softmax" and any(use.node.op_type == "MatMul" for use in node.outputs[0].uses()))
        for node in model.graph
    )


def fuse(model: ir.Model, products: Sequence[Product], sizes: EqualSizes) -> tuple[str, ...]:
    """Rewrite ``model`` with what ONNX Runtime has one operator for; says what was done.

    Args:
        model: with Q/DQ pairs; it is changed.
        products: of :func:`biased_products`, whose operands stand behind Q/DQ pairs by now.
        sizes: of its values, as they were before. They may rest on what the file says of them, as exporters write it:
            each candidate is compared with the float model at several sizes of every dynamic dim before it is kept.
    """
    edit = Editor(model)
    attentions = _Attentions(edit, sizes).fuse()  # first: the sizes are those of values that products replace
    with_bias = sum(_take_bias(edit, product) for product in products)
    sums = sum(_write_sum(node) for node in list(model.graph))
    if attentions or with_bias:
        model.opset_imports.setdefault(DOMAIN, 1)
        common.RemoveUnusedNodesPass()(model)
    done = {"attentions": attentions, "products with their bias": with_bias, "sums in front of normalizations": sums}
    said = ", ".join(f"{count} {what}" for what, count in done.items() if count)
    return (f"written as ONNX Runtime runs them fastest: {said}",) if said else ()


# products


def _take_bias(edit: Editor, product: Product) -> bool:
    node, add = product.node, product.home.node
    data, weight, bias = _behind_dq(node.inputs[0]), _behind_dq(node.inputs[1]), add.inputs[product.home.operand]
    if data is None or weight is None:
        return False
    (a, a_step, a_zero), (b, b_step, b_zero) = data, weight
    old = add.outputs[0]
    operands = [a, b, a_step, b_step, a_zero, b_zero, bias]
    new = edit.before(add, "MatMulIntegerToFloat", operands, name=f"{node.name}_with_bias", domain=DOMAIN)
    new.type, new.shape = old.type, old.shape
    return replace(old, new)


def _behind_dq(value: ir.Value | None) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Integers, scale and zero point of the DQ that makes ``value``."""
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear" or producer.domain:
        return None
    operands = tuple(item for item in producer.inputs if item is not None)
    return (operands[0], operands[1], operands[2]) if len(operands) == 3 else None


def _write_sum(node: ir.Node) -> bool:
    """Make a Sum of an Add of two results that a LayerNormalization reads."""
    results = all(value is not None and constant(value) is None for value in node.inputs)
    readers = (use.node.op_type == "LayerNormalization" and use.idx == 0 for use in node.outputs[0].uses())
    if not (_is(node, "Add") and results and any(readers)):
        return False
    node.op_type = "Sum"
    return True


# attention


class _Heads(NamedTuple):
    """What is split into heads: ``(batch, positions, heads · width)``, and how."""

    source: ir.Value
    batch: Size
    positions: Size
    heads: int
    width: int


class _Attention(NamedTuple):
    query: _Heads
    key: _Heads
    value: _Heads
    scale: float
    mask: ir.Value | None
    result: ir.Value


@final
class _Attentions:
    """softmax(scale · Q Kᵀ + mask) V over heads, with the Reshapes and Transposes that split and join them."""

    def __init__(self, edit: Editor, sizes: EqualSizes) -> None:
        self._edit, self._sizes = edit, sizes
        self._masks: dict[tuple[ir.Value, str, str], ir.Value] = {}

    def fuse(self) -> int:
        found = [match for node in self._edit.model.graph if (match := self._match(node)) is not None]
        return sum(self._write(match) for match in found)

    def _write(self, found: _Attention) -> bool:
        anchor = found.result.producer()
        assert anchor is not None
        operands = [found.query.source, found.key.source, found.value.source]
        if found.mask is not None:
            operands += [None, None, self._whole_mask(found, found.mask, anchor)]
        attributes = {"num_heads": found.query.heads, "scale": found.scale}
        name = f"{anchor.name}_attention"
        new = self._edit.before(anchor, "MultiHeadAttention", operands, attributes, name=name, domain=DOMAIN)
        new.type, new.shape = found.result.type, found.result.shape
        return replace(found.result, new)

    def _whole_mask(self, found: _Attention, mask: ir.Value, anchor: ir.Node) -> ir.Value:
        """The mask over queries and keys: the operator broadcasts over batch and heads alone."""
        wanted, dims = (found.query.positions, found.key.positions), self._dims(mask)
        if len(dims) == 4 and all(_same(have, want) for have, want in zip(dims[2:], wanted, strict=True)):
            return mask
        key = (mask, str(wanted[0]), str(wanted[1]))
        if key not in self._masks:
            ones = self._edit.constant(np.ones(2, np.int64), f"{mask.name}_ones", anchor)
            sizes = [self._positions(side.source, anchor) for side in (found.query, found.key)]
            shape = self._edit.before(anchor, "Concat", [ones, *sizes], {"axis": 0}, name=f"{mask.name}_shape")
            self._masks[key] = self._edit.before(anchor, "Expand", [mask, shape], name=f"{mask.name}_whole")
        return self._masks[key]

    def _positions(self, source: ir.Value, anchor: ir.Node) -> ir.Value:
        shape = self._edit.before(anchor, "Shape", [source], name=f"{source.name}_shape")
        one = self._edit.constant(np.ones(1, np.int64), f"{source.name}_axis", anchor)
        return self._edit.before(anchor, "Gather", [shape, one], {"axis": 0}, name=f"{source.name}_positions")

    # matching

    def _match(self, softmax: ir.Node) -> _Attention | None:
        """The attention around ``softmax``, where there is one and all it rests on is known."""
        default = -1 if self._edit.model.opset_imports.get("", 0) >= _SOFTMAX_OF_ONE_AXIS else 1
        if not _is(softmax, "Softmax") or softmax.attributes.get_int("axis", default) not in (-1, 3):
            return None
        products = [use.node for use in softmax.outputs[0].uses() if _is(use.node, "MatMul") and use.idx == 0]
        if len(products) != 1:
            return None
        result, value = self._joined(products[0]), self._split(products[0].inputs[1], _HEADS_FIRST)
        if result is None or value is None:
            return None
        for scores, mask in _summands(softmax.inputs[0]):
            scaled, outer = _unscaled(scores)
            product = None if scaled is None else scaled.producer()
            if product is None or not _is(product, "MatMul"):
                continue
            (left, query_scale), (right, key_scale) = (_unscaled(operand) for operand in product.inputs)
            query, key = self._split(left, _HEADS_FIRST), self._split(right, _KEYS_TURNED)
            if query is None or key is None:
                continue
            # The operator takes a scale of 0 for none given.
            scale = outer * query_scale * key_scale
            match = _Attention(query, key, value, scale, mask, result)
            return match if scale and self._agree(match) else None
        return None

    def _agree(self, found: _Attention) -> bool:
        query, key, value = found.query, found.key, found.value
        heads = query.heads == key.heads == value.heads and query.width == key.width
        batch = _same(query.batch, key.batch) and _same(key.batch, value.batch)
        # Keys and values are multiplied over their positions, but a name may be known for one of them only.
        out = self._dims(found.result)
        kept = len(out) == 3 and out[2] == value.heads * value.width
        kept = kept and (_same(out[0], query.batch) or _same(out[1], query.positions))
        return heads and batch and kept and (found.mask is None or self._is_mask(found, found.mask))

    def _is_mask(self, found: _Attention, mask: ir.Value) -> bool:
        """Whether adding it leaves the shape of the scores as it is, and the operator takes it."""
        if self._sizes.dtype(mask) is not ir.DataType.FLOAT:
            return False
        scores = (found.query.batch, found.query.heads, found.query.positions, found.key.positions)
        dims = self._sizes.of(mask)
        known = _same(scores[2], scores[2]) and _same(scores[3], scores[3])
        if dims is None or len(dims) > 4 or not known:
            return False
        return all(dim == 1 or _same(dim, want) for dim, want in zip(dims, scores[4 - len(dims) :], strict=True))

    def _split(self, value: ir.Value | None, order: tuple[int, ...]) -> _Heads | None:
        """What ``value`` is the heads of, turned to ``order``."""
        axes = tuple(range(4))
        node = None if value is None else value.producer()
        while node is not None and _is(node, "Transpose"):
            perm = node.attributes.get_ints("perm")
            if perm is None or len(perm) != 4:
                return None
            axes = tuple(perm[axis] for axis in axes)
            node = None if node.inputs[0] is None else node.inputs[0].producer()
        if node is None or not _is(node, "Reshape") or axes != order or node.inputs[0] is None:
            return None
        source = node.inputs[0]
        before, after = self._dims(source), self._dims(node.outputs[0])
        if len(before) != 3 or len(after) != 4 or self._sizes.dtype(source) is not ir.DataType.FLOAT:
            return None
        batch, positions, whole = before
        heads, width = after[2:]
        if not isinstance(heads, int) or not isinstance(width, int) or whole != heads * width:
            return None
        # A Reshape keeps the number of elements: with one of the two proven, the other is.
        if not (_same(after[0], batch) or _same(after[1], positions)):
            return None
        return _Heads(source, batch, positions, heads, width)

    def _joined(self, product: ir.Node) -> ir.Value | None:
        """The heads of ``product`` side by side again: what its only reader's only reader makes."""
        turned = _only_reader(product)
        if turned is None or not _is(turned, "Transpose"):
            return None
        if tuple(turned.attributes.get_ints("perm") or ()) != _HEADS_FIRST:
            return None
        joined = _only_reader(turned)
        return joined.outputs[0] if joined is not None and _is(joined, "Reshape") else None

    def _dims(self, value: ir.Value) -> tuple[Size, ...]:
        return self._sizes.of(value) or ()


def _summands(value: ir.Value | None) -> Iterator[tuple[ir.Value, ir.Value | None]]:
    """``value`` as scores alone, then as scores and a mask, either way round."""
    if value is None:
        return
    yield value, None
    node = value.producer()
    if node is not None and _is(node, "Add") and node.inputs[0] is not None and node.inputs[1] is not None:
        yield node.inputs[0], node.inputs[1]
        yield node.inputs[1], node.inputs[0]


def _unscaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """``value`` without the constant that it is multiplied with or divided by, and that factor."""
    node = None if value is None else value.producer()
    if node is None or node.op_type not in ("Mul", "Div") or node.domain:
        return value, 1.0
    for index in (0, 1) if node.op_type == "Mul" else (1,):
        tensor = constant(node.inputs[index])
        if tensor is not None and tensor.size == 1 and len(tensor.shape) <= 4:
            factor = float(tensor.numpy().reshape(-1)[0])
            if not np.isfinite(factor) or not factor:
                return value, 1.0
            return node.inputs[1 - index], factor if node.op_type == "Mul" else 1 / factor
    return value, 1.0


def _only_reader(node: ir.Node) -> ir.Node | None:
    uses = list(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 and uses[0].idx == 0 and not node.outputs[0].is_graph_output() else None


def _is(node: ir.Node, operator: str) -> bool:
    return node.op_type == operator and not node.domain


def _same(one: Size, other: Size) -> bool:
    """Whether two dims are known to be equal: the same size, or the same name."""
    return one is not None and one == other
