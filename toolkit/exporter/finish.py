"""From an exporter's graph to the one that is written: names of the person's, nothing of the machine it was made on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from toolkit.exporter.adapter import PREFIX
from toolkit.exporter.strategies.base import StrategyFailed
from toolkit.tensors import Dim, TensorSpec

_DTYPES = {"float32": ir.DataType.FLOAT, "float64": ir.DataType.DOUBLE}
# Symbols in the names of dims: identifiers that are no functions.
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


def finish(
    model: ir.Model, specs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], metadata: Mapping[str, str]
) -> None:
    """Rename inputs, outputs, dims and weights, and replace all metadata, in place.

    Args:
        model: as a strategy made it.
        specs: the inputs it was asked for, in order.
        outputs: the outputs as the module answers them.
        metadata: what to write into the file.

    Raises:
        StrategyFailed: an input or output is missing, or a dynamic dim was frozen.
    """
    _clean(model)
    _complete_inputs(model, specs)
    _rename_weights(model)
    _rename_dims(model, specs)
    _own_outputs(model)
    if len(model.graph.outputs) != len(outputs):
        raise StrategyFailed(f"the graph has {len(model.graph.outputs)} outputs instead of {len(outputs)}")
    _rename(model, dict(zip(model.graph.inputs, [spec.name for spec in specs], strict=True)))
    _rename(model, dict(zip(model.graph.outputs, [spec.name for spec in outputs], strict=True)))
    for value, spec in zip(model.graph.inputs, specs, strict=True):
        value.shape = ir.Shape(spec.shape or ())
    for value, spec in zip(model.graph.outputs, outputs, strict=True):
        value.shape = _output_shape(value.shape, spec)
    model.graph.name = "main"
    model.metadata_props.clear()
    model.metadata_props.update(metadata)


def _output_shape(found: ir.Shape | None, spec: TensorSpec) -> ir.Shape | None:
    """The shape that the module's answers have, but a size that the exporter knows to vary stays a name."""
    if spec.shape is None:
        return None
    known = list(found) if found is not None and len(found) == len(spec.shape) else list(spec.shape)
    dims: list[Dim] = []
    for axis, (dim, wanted) in enumerate(zip(known, spec.shape, strict=True)):
        varies = isinstance(wanted, int) and isinstance(dim, ir.SymbolicDim) and not str(dim.value).isdigit()
        dims.append(f"{spec.name}_dim{axis}" if varies else wanted)
    return ir.Shape(dims)


def _clean(model: ir.Model) -> None:
    """Drop what exporters note down for themselves: stack traces with paths, class names, symbols."""
    model.doc_string = model.graph.doc_string = None
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        graph.doc_string = None
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                _clean_value(value)
        for value in graph.inputs:
            _clean_value(value)
    for value in model.graph.initializers.values():
        _clean_value(value)
    for graph in model.graph.subgraphs() if callable(getattr(model.graph, "subgraphs", None)) else ():
        graph.metadata_props.clear()
        graph.doc_string = None


def _clean_value(value: ir.Value) -> None:
    value.metadata_props.clear()
    value.doc_string = None


def _complete_inputs(model: ir.Model, specs: Sequence[TensorSpec]) -> None:
    """Put back inputs that the exporter dropped because nothing uses them: the interface stays as it was asked for."""
    inputs = model.graph.inputs
    if len(inputs) == len(specs):
        return
    by_name = {value.name: value for value in inputs}
    if not set(by_name) <= {spec.name for spec in specs}:
        raise StrategyFailed(f"the graph has {len(inputs)} inputs instead of {len(specs)}")
    inputs.clear()
    for spec in specs:
        value = by_name.get(spec.name) or ir.Value(
            name=spec.name, type=ir.TensorType(_onnx_type(spec.dtype)), shape=ir.Shape(spec.shape or ())
        )
        inputs.append(value)


def _onnx_type(dtype: str) -> ir.DataType:
    return _DTYPES.get(dtype) or ir.DataType[dtype.upper()]


def _rename_weights(model: ir.Model) -> None:
    """Weights get the names they have in the module's own state dict."""
    for name, value in list(model.graph.initializers.items()):
        if name.startswith(PREFIX):
            del model.graph.initializers[name]
            value.name = name.removeprefix(PREFIX)
            if value.const_value is not None:
                value.const_value.name = value.name
            model.graph.initializers[value.name] = value


def _rename_dims(model: ir.Model, specs: Sequence[TensorSpec]) -> None:
    """Dims get the names they were asked for, wherever they occur.

    Raises:
        StrategyFailed: a dim that was asked to be dynamic is a number.
    """
    names: dict[str, str] = {}
    for value, spec in zip(model.graph.inputs, specs, strict=True):
        for found, wanted in zip(value.shape or (), spec.shape or (), strict=False):
            if not isinstance(wanted, str):
                continue
            if isinstance(found, int) or str(found.value).isdigit():
                raise StrategyFailed(f"dim '{wanted}' of input '{spec.name}' was frozen to {found}")
            if found.value is not None:
                names.setdefault(str(found.value), wanted)
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, names) for dim in value.shape])


def _renamed(dim: int | ir.SymbolicDim, names: Mapping[str, str]) -> Dim | None:
    if isinstance(dim, int):
        return dim
    return None if dim.value is None else _SYMBOL.sub(lambda match: names.get(match[0], match[0]), str(dim.value))


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph.all_nodes():
        yield from node.outputs


def _own_outputs(model: ir.Model) -> None:
    """Every output is a value of its own: no input, no weight, and none given twice."""
    seen: set[int] = set()
    for index, value in enumerate(list(model.graph.outputs)):
        if value.producer() is None or id(value) in seen:
            node = ir.node("Identity", [value])
            node.outputs[0].name = f"{value.name}_output_{index}"
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            model.graph.append(node)
            model.graph.outputs[index] = node.outputs[0]
        seen.add(id(value))


def _rename(model: ir.Model, names: Mapping[ir.Value, str]) -> None:
    """Give values new names; others that have these names already make way."""
    taken = set(names.values())
    everything = {id(value): value for value in (*_values(model), *model.graph.initializers.values())}
    used = {value.name for value in everything.values()} | taken
    wanted = {id(value) for value in names}
    for value in everything.values():
        if value.name in taken and id(value) not in wanted:
            fresh = next(name for index in range(len(used) + 1) if (name := f"{value.name}_{index}") not in used)
            used.add(fresh)
            _set_name(model, value, fresh)
    for index, value in enumerate(names):  # two steps, since values may swap names
        value.name = f"toolkit_{index}_{value.name}"
    for value, name in names.items():
        value.name = name


def _set_name(model: ir.Model, value: ir.Value, name: str) -> None:
    if model.graph.initializers.get(value.name or "") is value:
        del model.graph.initializers[value.name]
        value.name = name
        model.graph.initializers[name] = value
    else:
        value.name = name
