"""Whether an ONNX file holds together, before an engine is given it: engines crash on files that lie about themselves.

The whole file is walked on the wire: messages nest to a limit, text is UTF-8, every tensor has the bytes that its dims
claim, external data stays inside its folder, functions do not call themselves, and attributes that engines count with
are in bounds. What operators mean is the engine's business: it answers with an error where they make no sense.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import InvalidModel
from toolkit.files import existing_file
from toolkit.onnxfile.arity import check_arity
from toolkit.onnxfile.attributes import check_attributes
from toolkit.onnxfile.schema import MESSAGES, TEXTS
from toolkit.onnxfile.tensors import check_data, read_tensor
from toolkit.onnxfile.wire import BYTES, Content, Field, fields, mapped, signed

# protobuf's own limit, which engines' parsers keep: deeper files open nowhere.
MAX_DEPTH = 100
# A model of 100 billion parameters has some 100,000 parts; a file of millions of empty ones is an attack on memory.
MAX_FIELDS = 10_000_000
# OpenVINO looks for each version below the one that is asked for: 2 to the 31 of them take it minutes per node.
MAX_OPSET = 10_000
_OPSET_VERSION = 2
_GRAPH, _OPSETS = 7, 8
# ONNX Runtime's node around a compiled engine; source: docs/execution-providers/EP-Context-Design.
_NATIVE = "EPContext"
_NODE_TYPE, _NODE_DOMAIN, _NODE_OVERLOAD = 4, 7, 8
_FUNCTION_NAME, _FUNCTION_DOMAIN, _FUNCTION_OVERLOAD, _FUNCTION_NODE = 1, 10, 13, 7


def check_model(model: Path, *, native: bool = False) -> tuple[str, ...]:
    """Check the ONNX file ``model`` and the place and size of its external data, which lies beside it.

    ``native`` allows nodes that hold an engine's machine code.

    Returns:
        Names of the files that hold tensors of the model, relative to its folder, in order of name.

    Raises:
        FileProblem: nothing readable is there.
        InvalidModel: one line with what does not hold.
    """
    existing_file(model, "model file")
    with mapped(model) as content:
        return check_content(content, model.parent, model, native=native)


def check_content(content: Content, folder: Path | None, where: object, *, native: bool = False) -> tuple[str, ...]:
    """Like :func:`check_model` for bytes; without ``folder``, files of external data are not looked for.

    Raises:
        InvalidModel: one line with what does not hold.
    """
    try:
        walk = _Walk(content, folder, native)
        walk.model()
        return tuple(sorted(walk.locations))
    except UnicodeDecodeError as exc:
        raise InvalidModel(
            "a name in the file is damaged", where=where, next_step="check that it copied whole"
        ) from exc
    except (IndexError, ValueError) as exc:
        reason = str(exc) if isinstance(exc, ValueError) else "it ends too early"
        raise InvalidModel(
            "not a sound ONNX file",
            where=where,
            got=reason,
            next_step="export it again, or check that it copied whole",
        ) from exc


class _Walk:
    """One walk over a model; collects which function calls which, and which files hold tensors."""

    def __init__(self, content: Content, folder: Path | None, native: bool) -> None:
        self._content, self._folder, self._native = content, folder, native
        self.locations: set[str] = set()
        self._left = MAX_FIELDS
        self._calls: dict[str, set[str]] = {}
        self._caller: set[str] = set()

    def model(self) -> None:
        self._opset_version = max(self._standard_opsets(), default=1)
        has_graph = False
        for field in self._fields(0, len(self._content)):
            has_graph |= field.number == _GRAPH and field.wire == BYTES
            self._field("model", field, 0)
        if not has_graph:
            raise ValueError("it holds no graph")
        check_calls(self._calls)

    def _standard_opsets(self) -> Iterator[int]:
        """Versions of the standard operators that the model says it uses: one, in a sound file."""
        for field in self._fields(0, len(self._content)):
            if field.number == _OPSETS and field.wire == BYTES:
                parts = list(fields(self._content, field.start, field.end))
                names = [self._text(part) for part in parts if part.number == 1 and part.wire == BYTES]
                if not set(names) - {"", "ai.onnx"}:
                    yield from (part.value for part in parts if part.number == _OPSET_VERSION)

    def _fields(self, start: int, end: int) -> Iterator[Field]:
        for field in fields(self._content, start, end):
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"more than {MAX_FIELDS} parts")
            yield field

    def _field(self, kind: str, field: Field, depth: int) -> None:
        if field.wire != BYTES:
            return
        if field.number in TEXTS[kind]:
            self._text(field)
        elif (child := MESSAGES[kind].get(field.number)) is not None:
            self._message(child, field, depth + 1)

    def _text(self, field: Field) -> str:
        return self._content[field.start : field.end].decode()

    def _message(self, kind: str, whole: Field, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if kind == "tensor":
            self._tensor(whole)
        elif kind == "function":
            self._function(whole, depth)
        else:
            if kind == "node":
                self._node(whole)
            elif kind == "opset":
                self._opset(whole)
            for field in self._fields(whole.start, whole.end):
                self._field(kind, field, depth)

    def _tensor(self, whole: Field) -> None:
        tensor = read_tensor(self._content, whole.start, whole.end)
        self._left -= 1 + len(tensor.data)
        try:
            check_data(self._content, tensor, self._folder)
            if tensor.external is not None:
                self.locations.add(tensor.external.location)
        except ValueError as exc:
            raise ValueError(f"tensor '{tensor.name[:80]}': {exc}") from exc

    def _node(self, whole: Field) -> None:
        name = self._name(whole, _NODE_DOMAIN, _NODE_TYPE, _NODE_OVERLOAD)
        if name.split(":")[1] == "":
            raise ValueError("a node without an operator")
        if _NATIVE in name and not self._native:
            raise ValueError(f"it holds an engine's machine code, a node {_NATIVE}")
        domain, operator, _ = name.split(":", 2)
        check_attributes(self._content, whole, operator)
        if not domain:
            check_arity(operator, self._names(whole, 1), self._names(whole, 2), self._opset_version)
        self._caller.add(name)

    def _names(self, whole: Field, number: int) -> list[str]:
        found = fields(self._content, whole.start, whole.end)
        return [self._text(field) for field in found if field.number == number and field.wire == BYTES]

    def _opset(self, whole: Field) -> None:
        for field in self._fields(whole.start, whole.end):
            if field.number == _OPSET_VERSION and not 0 <= signed(field.value) <= MAX_OPSET:
                raise ValueError(f"no such opset: {signed(field.value)}")

    def _function(self, whole: Field, depth: int) -> None:
        outer, self._caller = self._caller, set()
        for field in self._fields(whole.start, whole.end):
            self._field("function", field, depth)
        name = self._name(whole, _FUNCTION_DOMAIN, _FUNCTION_NAME, _FUNCTION_OVERLOAD)
        self._calls.setdefault(name, set()).update(self._caller)
        self._caller = outer

    def _name(self, whole: Field, domain: int, name: int, overload: int) -> str:
        """``domain:name:overload`` of a node's operator or of a function."""
        found = {
            field.number: self._text(field)
            for field in fields(self._content, whole.start, whole.end)
            if field.number in (domain, name, overload) and field.wire == BYTES
        }
        space = found.get(domain, "")
        return f"{'' if space == 'ai.onnx' else space}:{found.get(name, '')}:{found.get(overload, '')}"


def check_calls(calls: dict[str, set[str]]) -> None:
    """Check that no function calls itself, through others or not: an engine that inlines it would never end.

    Raises:
        ValueError: naming a function that does.
    """
    waiting = {name: {called for called in found if called in calls} for name, found in calls.items()}
    while waiting:
        done = [name for name, found in waiting.items() if not found]
        if not done:
            raise ValueError(f"the function '{next(iter(waiting))}' calls itself")
        for name in done:
            del waiting[name]
        for found in waiting.values():
            found.difference_update(done)
