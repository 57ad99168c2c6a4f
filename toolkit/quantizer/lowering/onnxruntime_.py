"""ONNX Runtime's own quantizers, where they do the job: dynamic int8, and MatMulNBits."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as common

from toolkit.errors import MissingDependency, NotApplicable, ToolkitError, one_line
from toolkit.graph.edit import Editor
from toolkit.graph.equal_sizes import EqualSizes
from toolkit.graph.walk import every_node
from toolkit.providers.placement import Dynamic, WeightOnly
from toolkit.quantizer.lowering.blocks import share_blocks, tied_tables
from toolkit.quantizer.lowering.derived_names import step_aside, step_back
from toolkit.quantizer.lowering.fitness import unfit
from toolkit.quantizer.lowering.fused import fuse
from toolkit.quantizer.lowering.gemm import split_gemms
from toolkit.quantizer.lowering.lowered import Lowered
from toolkit.quantizer.lowering.tables import narrow_tables
from toolkit.quantizer.plan import LeftInFloat, constant

DYNAMIC_OPSET = 11
"""DynamicQuantizeLinear and MatMulInteger appeared by then."""
_SHARED_SCALE = "activations share one scale per tensor and run: an answer depends on what shares its batch"
# What an operator becomes; source: onnxruntime/quantization/operators.
_DYNAMIC_FORMS = {"MatMulInteger": "MatMul", "DynamicQuantizeLSTM": "LSTM", "ConvInteger": "Conv"}


def lower_dynamic(model: ir.Model, rules: Dynamic) -> Lowered:
    """A copy of ``model`` whose weights are int8 and whose activations are quantized as it runs.

    Raises:
        NotApplicable: ONNX Runtime's quantizer fails on it.
    """
    copy = model.clone()
    split_gemms(copy)
    fused = fuse(copy, (), EqualSizes(copy, annotations=True))
    refused = _refused(copy, rules.operators)
    kept = step_aside(copy)
    quantization = _import_quantization()
    with tempfile.TemporaryDirectory(prefix="toolkit-dynamic-") as folder, _quantizing():
        before, after = Path(folder) / "float.onnx", Path(folder) / "dynamic.onnx"
        ir.save(copy, before, external_data="float.onnx.data")
        quantization.quantize_dynamic(
            before, after, op_types_to_quantize=list(rules.operators), per_channel=True,
            weight_type=quantization.QuantType.QInt8, use_external_data_format=_is_large(copy),
            nodes_to_exclude=list(refused),
        )  # fmt: skip
        lowered = _read(after)
    step_back(lowered, kept)
    counts = Counter(_DYNAMIC_FORMS[node.op_type] for node in every_node(lowered) if node.op_type in _DYNAMIC_FORMS)
    left = _left(lowered, rules.operators, "its weight is no constant", refused)
    notes = (_SHARED_SCALE, *fused) if counts else ()
    return Lowered(lowered, "dynamic int8", "int8", dict(counts), left, notes)


def lower_to_nbits(model: ir.Model, rules: WeightOnly, bits: int) -> Lowered:
    """A copy of ``model`` whose MatMuls read weights of ``bits`` bits in blocks, through ONNX Runtime's MatMulNBits.

    Tables that Gathers read become int8, in standard operators (:mod:`toolkit.quantizer.lowering.tables`).

    Raises:
        NotApplicable: ONNX Runtime's quantizer fails on it.
    """
    copy = model.clone()
    split_gemms(copy)
    tied = tied_tables(copy, rules.block_size) if bits == 8 else {}
    narrowed = narrow_tables(Editor(copy), but=tied)
    common.RemoveUnusedNodesPass()(copy)
    refused = _refused(copy, ("MatMul",))
    kept = step_aside(copy)
    with _quantizing():
        quantizer = _import_nbits()(
            ir.to_proto(copy), bits=bits, block_size=rules.block_size, is_symmetric=True, accuracy_level=4,
            nodes_to_exclude=list(refused),
        )  # fmt: skip
        quantizer.process()
    lowered = ir.from_proto(quantizer.model.model)
    shared = share_blocks(lowered, {table.name or "": weight.name or "" for table, weight in tied.items()})
    step_back(lowered, kept)
    products = sum(node.op_type == "MatMulNBits" for node in every_node(lowered))
    quantized = {name: count for name, count in (("MatMul", products), ("Gather", narrowed.readers + shared)) if count}
    left = (*narrowed.left, *_left(lowered, ("MatMul",), "its weight is no constant matrix", refused))
    return Lowered(lowered, f"weight-only int{bits}", f"int{bits}", quantized, left)


def _refused(model: ir.Model, operators: tuple[str, ...]) -> dict[str, str]:
    """Nodes with a weight that no integer can stand for, and why: the quantizers do not look."""
    found = ((node, unfit(constant(value))) for node in every_node(model) for value in node.inputs)
    return {node.name or "": reason for node, reason in found if reason and node.op_type in operators}


def _left(
    model: ir.Model, operators: tuple[str, ...], reason: str, refused: Mapping[str, str]
) -> tuple[LeftInFloat, ...]:
    nodes = (node for node in every_node(model) if node.op_type in operators and not node.domain)
    return tuple(LeftInFloat(node.name or "", node.op_type, refused.get(node.name or "", reason)) for node in nodes)


def _is_large(model: ir.Model) -> bool:
    from toolkit.graph.files import SINGLE_FILE_BYTES, weight_bytes

    return weight_bytes(model) > SINGLE_FILE_BYTES


def _read(path: Path) -> ir.Model:
    """The model with its weights in memory, since the folder goes away, and in order, which If nodes get out of."""
    model = ir.load(path)
    ir.external_data.load_to_model(model)
    common.TopologicalSortPass()(model)
    return model


def _import_quantization() -> Any:
    try:
        import onnxruntime.quantization as quantization
    except ImportError as exc:
        raise MissingDependency.of("onnxruntime", "cpu", "dynamic and weight-only quantization") from exc
    return quantization


def _import_nbits() -> Any:
    _import_quantization()
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    # Importing it sets up the root logger for the whole process.
    root.setLevel(level)
    root.handlers[:] = handlers
    return MatMulNBitsQuantizer


@contextmanager
def _quantizing() -> Iterator[None]:
    """Keep what these quantizers log to the root logger off the terminal, and say their failures in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except ToolkitError:
        raise
    except Exception as exc:
        got = one_line(f"{type(exc).__name__}: {exc}", 200)
        raise NotApplicable("ONNX Runtime's quantizer fails on this model", got=got) from exc
    finally:
        logging.disable(before)
