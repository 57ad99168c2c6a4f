"""Shapes of every value in a model, and giving named dims a size or another name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import onnx
import onnx_ir as ir

from toolkit.errors import InvalidModel, UsageError, one_line
from toolkit.graph.facts import input_specs, is_unknown, unknown_dim
from toolkit.graph.stand_ins import stand_in
from toolkit.graph.validity import skeleton
from toolkit.graph.walk import every_graph, values
from toolkit.tensors import complete_dims, nearest

# Weights up to this size stay in the graph that shapes are inferred on: shapes, axes and indices are among them.
_KEPT_BYTES = 1024


class Inferred(NamedTuple):
    """Type and shape of a value; None where inference did not find one."""

    dtype: ir.DataType | None
    shape: ir.Shape | None

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """The shape when every dim is a number."""
        if self.shape is None or not all(isinstance(dim, int) and dim >= 0 for dim in self.shape):
            return None
        return tuple(dim for dim in self.shape if isinstance(dim, int))


Shapes = Mapping[ir.Value, Inferred]


def infer(model: ir.Model, dims: Mapping[str, int] | None = None, *, annotations: bool = True) -> Shapes:
    """Type and shape of each value of ``model``, by onnx's shape inference; the model is not changed.

    Args:
        model: the model.
        dims: sizes that its named dims take; those left out stay unknown.
        annotations: whether to believe the shapes that the file gives for values that nodes compute. They may be wrong,
            since engines do not check them as they check inputs; what is derived here must then not rest on them.

    Raises:
        UsageError: a dim the model does not have.
        InvalidModel: types that contradict each other.
    """
    subject = fix_dims(model, dims) if dims else model.clone()
    if not annotations:
        _strip_annotations(subject)
    _bring_constants_inside(subject)
    stand_in(subject)
    proto = skeleton(subject, keep_bytes=_KEPT_BYTES)
    try:
        found = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as exc:
        raise InvalidModel("its shapes contradict each other", got=one_line(exc, 200)) from exc
    known: dict[ir.Value, Inferred] = {}
    for graph, same in zip(every_graph(model), every_graph(ir.serde.deserialize_model(found)), strict=True):
        by_name = {value.name: value for value in values(same)}
        for value in values(graph):
            if (twin := by_name.get(value.name)) is not None:
                known[value] = Inferred(twin.dtype, twin.shape)
    return known


def _strip_annotations(model: ir.Model) -> None:
    for graph in every_graph(model):
        # What a loop carries may change its shape from one round to the next, whatever the body's inputs declare.
        carried = [] if graph is model.graph else list(graph.inputs)
        for value in (*carried, *(output for node in graph for output in node.outputs)):
            value.shape = None


def _bring_constants_inside(model: ir.Model) -> None:
    """Copy small constants into the branches that read them from outside: onnx's inference looks no further."""
    for number, graph in enumerate(model.graphs()):
        copies: dict[ir.Value, ir.Value] = {}
        reads = [(node, index, value) for node in graph for index, value in enumerate(node.inputs)]
        for reader, index, value in reads:
            if value is None or value.const_value is None or value.graph is graph or value.producer() is not None:
                continue
            if value.const_value.nbytes <= _KEPT_BYTES:
                if value not in copies:
                    name = f"{value.name}__in_graph_{number}"
                    copies[value] = ir.Value(
                        name=name, type=value.type, shape=value.shape, const_value=value.const_value
                    )
                    graph.register_initializer(copies[value])
                reader.replace_input_with(index, copies[value])


def fix_dims(model: ir.Model, dims: Mapping[str, int]) -> ir.Model:
    """A copy of ``model`` in which the named dims have these sizes, wherever they occur.

    Dims without a name are addressed as ``<input>_dim<axis>``, as ``toolkit inspect`` shows them.

    Raises:
        UsageError: a dim that no input has; the nearest is named.
    """
    complete_dims(input_specs(model), dims)
    copy = model.clone()
    for value in copy.graph.inputs:
        _map_dims(value, lambda name: dims.get(name, name))
    for graph in every_graph(copy):
        for value in values(graph):
            if value.shape is not None and value.const_value is None:
                value.shape = _evaluated(value.shape, dims)
    return copy


def _evaluated(shape: ir.Shape, dims: Mapping[str, int]) -> ir.Shape:
    """``shape`` with ``dims`` put in, into sums and products of them too where dims can be read as such."""
    try:
        return shape.evaluate(dims)
    except ValueError:  # a file may call its dims anything
        return ir.Shape([dims.get(dim.value or "", dim) if isinstance(dim, ir.SymbolicDim) else dim for dim in shape])


def rename_dims(model: ir.Model, names: Mapping[str, str]) -> ir.Model:
    """A copy of ``model`` whose dims have other names; two dims cannot become one: that would claim they are equal.

    Raises:
        UsageError: a dim that no input has, or a new name that is taken.
    """
    known = {dim for spec in input_specs(model) for dim in spec.dynamic_dims}
    for old, new in names.items():
        if old not in known:
            raise UsageError(
                "the model has no such dim", where="--rename-dim", got=old, expected=nearest(old, known or {"none"})
            )
        if new in known - {old} or not new.isidentifier() or list(names.values()).count(new) > 1:
            raise UsageError("the new name is taken, or is not a name", where="--rename-dim", got=f"{old}={new}")
    copy = model.clone()
    for graph in every_graph(copy):
        for value in (*values(graph), *graph.outputs):
            _map_dims(value, lambda name: names.get(name, name))
    return copy


def _map_dims(value: ir.Value, mapped: Callable[[str], int | str]) -> None:
    """Replace dims by what ``mapped`` gives for their names."""
    if value.shape is None or value.const_value is not None:
        return
    value.shape = ir.Shape([_mapped(dim, value.name or "", axis, mapped) for axis, dim in enumerate(value.shape)])


def _mapped(
    dim: int | ir.SymbolicDim, tensor: str, axis: int, mapped: Callable[[str], int | str]
) -> int | str | ir.SymbolicDim:
    """One dim; an unknown one whose name nobody asked for stays unknown."""
    if not is_unknown(dim):
        return dim if isinstance(dim, int) else mapped(str(dim.value))
    name = unknown_dim(tensor, axis)
    return ir.SymbolicDim(None) if (new := mapped(name)) == name else new
