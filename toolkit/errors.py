"""Every error the toolkit raises on purpose, and the one table that maps vendor exceptions into it.

    ToolkitError            exit 1   a run that failed
    ├── UsageError          exit 2   the user has to change something they passed in
    │   ├── InvalidInput             a tensor fed to a model: name, dtype, rank or size
    │   ├── InvalidModel             a model file or a source that cannot be read
    │   ├── InvalidData              a data file or sample stream
    │   ├── InvalidTarget            a target file, a provider option, an unknown target name
    │   ├── InvalidBundle            a bundle whose manifest, hashes or members do not hold
    │   └── FileProblem              missing, a directory, unreadable, unwritable
    ├── MissingDependency   exit 1   a package that an extra would install
    ├── ProviderUnavailable exit 1   an engine or device that is not on this machine
    ├── NotApplicable       exit 1   this model cannot run on that target, and the target is not at fault
    ├── EngineError         exit 1   the engine failed while opening or running
    ├── Overloaded          exit 1   more calls are waiting for the engine than its queue takes
    ├── TimedOut            exit 1   a call was not answered in time; also a TimeoutError
    └── CheckFailed         exit 3   something ran and the answer is no
        ├── ParityError              two models that should agree do not
        ├── AccuracyError            a metric outside its budget
        └── RegressionError          slower or larger than allowed

A message is one line that answers five questions: what, where, got, expected, what to do next.
"""

from __future__ import annotations

import re
from typing import ClassVar


class ToolkitError(Exception):
    """A failed run. ``str(error)`` is always a single line.

    Args:
        what: the problem itself, as a clause without a full stop.
        where: file, node, input or option it concerns.
        got: what was found.
        expected: what would have been right.
        next_step: what the person can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        where: object | None = None,
        got: object | None = None,
        expected: object | None = None,
        next_step: str | None = None,
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.got = None if got is None else str(got)
        self.expected = None if expected is None else str(expected)
        self.next_step = next_step
        super().__init__(self._line())

    def _line(self) -> str:
        parts = [self.what if self.where is None else f"{self.where}: {self.what}"]
        if self.got is not None:
            parts.append(f"got {self.got}")
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.next_step is not None:
            parts.append(self.next_step)
        return one_line("; ".join(parts))


class UsageError(ToolkitError):
    exit_code = 2


class InvalidInput(UsageError):
    pass


class InvalidModel(UsageError):
    pass


class InvalidData(UsageError):
    pass


class InvalidTarget(UsageError):
    pass


class InvalidBundle(UsageError):
    pass


class FileProblem(UsageError):
    pass


class MissingDependency(ToolkitError):
    """A package is not installed; the message names the extra that brings it."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingDependency:
        return cls(
            f"{purpose} needs the package {package}, which is not installed",
            next_step=f"pip install 'onnx-toolkit[{extra}]'",
        )


# Import names of what the extras bring: (distribution, extra).
_EXTRAS: dict[str, tuple[str, str]] = {
    "PIL": ("Pillow", "images"),
    "ml_dtypes": ("ml_dtypes", "graph"),
    "nncf": ("nncf", "quantize"),
    "onnx": ("onnx", "graph"),
    "onnx_ir": ("onnx-ir", "graph"),
    "onnxruntime": ("onnxruntime", "cpu"),
    "onnxscript": ("onnxscript", "graph"),
    "openvino": ("openvino", "openvino"),
    "psutil": ("psutil", "profile"),
    "safetensors": ("safetensors", "export"),
    "sklearn": ("scikit-learn", "evaluate"),
    "torch": ("torch", "export"),
    "transformers": ("transformers", "zoo"),
}


def missing_dependency(exc: BaseException) -> MissingDependency | None:
    """What a failed import means when the module is one that an extra brings; None for any other exception."""
    name = (exc.name or "").split(".")[0] if isinstance(exc, ModuleNotFoundError) else ""
    return MissingDependency.of(*_EXTRAS[name], purpose="this") if name in _EXTRAS else None


class ProviderUnavailable(ToolkitError):
    pass


def import_failed(exc: ImportError, package: str, extra: str, purpose: str) -> ToolkitError:
    """What the failed import of an engine means; raise it ``from exc``.

    Args:
        package: its name as it is imported. extra, purpose: as :meth:`MissingDependency.of` takes them.

    Raises:
        KeyboardInterrupt: Ctrl-C during the start-up of an extension module surfaces as an ImportError: as its cause,
            or in its text where pybind11 is old. Source: pybind11, detail/common.h, PYBIND11_CATCH_INIT_EXCEPTIONS.
    """
    seen: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and link not in seen:
        if isinstance(link, KeyboardInterrupt) or str(link).startswith("KeyboardInterrupt"):
            raise KeyboardInterrupt from exc
        seen.append(link)
        link = link.__cause__ or link.__context__
    if isinstance(exc, ModuleNotFoundError) and exc.name == package:
        return MissingDependency.of(package, extra, purpose)
    return ProviderUnavailable(
        f"the installed {package} cannot be imported: {one_line(exc, 300)}",
        next_step=f"pip install --force-reinstall {package}",
    )


class NotApplicable(ToolkitError):
    pass


class EngineError(ToolkitError):
    pass


class Overloaded(ToolkitError):
    pass


class TimedOut(ToolkitError, TimeoutError):
    pass


class CheckFailed(ToolkitError):
    exit_code = 3


class ParityError(CheckFailed):
    pass


class AccuracyError(CheckFailed):
    pass


class RegressionError(CheckFailed):
    pass


def one_line(text: object, limit: int = 600) -> str:
    """``text`` with its whitespace folded, cut to ``limit`` characters with an ellipsis."""
    folded = re.sub(r"\s+", " ", str(text)).strip()
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"


# Vendor exceptions by (class name, text pattern), most specific first. The vendors' classes are matched by name so that
# this module imports no engine. ONNX Runtime's come from onnxruntime/capi/onnxruntime_pybind_exceptions.cc; OpenVINO
# raises RuntimeError with C++ source locations in the text.
_VENDOR_ERRORS: tuple[tuple[str, str, type[ToolkitError], str, str | None], ...] = (
    ("MemoryError", r"", EngineError, "the engine ran out of memory", None),
    ("*", r"out of memory|bad_alloc|Failed to allocate memory", EngineError, "the engine ran out of memory", None),
    (
        "*",
        r"Unsupported model IR version",
        InvalidModel,
        "the file's IR version is newer than this engine reads",
        "install a newer engine, or export again with a lower --opset",
    ),
    (
        "*",
        r"ONNX Runtime only \*guarantees\* support for models stamped",
        InvalidModel,
        "the file's opset is newer than this engine runs",
        "install a newer engine, or export again with a lower --opset",
    ),
    (
        "*",
        r"External data path|externally stored data|external data file",
        FileProblem,
        "the file that holds the model's weights is missing, too short or outside its folder",
        "keep it beside the model under the name it has there",
    ),
    (
        "InvalidProtobuf",
        r"",
        InvalidModel,
        "not a readable ONNX file",
        "export it again, or check that it copied whole",
    ),
    # ONNX Runtime's bindings read names as UTF-8.
    ("UnicodeDecodeError", r"", InvalidModel, "a name in the file is damaged", "check that it copied whole"),
    ("NoSuchFile", r"", FileProblem, "the file or its external data is missing", None),
    ("InvalidGraph", r"", InvalidModel, "the graph is not valid ONNX", None),
    ("NoModel", r"", InvalidModel, "the file holds no model", None),
    ("ModelLoadCanceled", r"", EngineError, "loading was cancelled", None),
    (
        "*",
        r"is not a registered function/op|No Op registered for",
        NotApplicable,
        "the engine does not know an operator",
        None,
    ),
    ("NotImplemented", r"", NotApplicable, "the engine has no implementation for a node", None),
    ("InvalidArgument", r"", EngineError, "the engine refused its arguments", None),
    (
        "*",
        r"Cannot find implementation|not supported by OpenVINO|OpenVINO does not support",
        NotApplicable,
        "the engine has no implementation for a node",
        None,
    ),
    (
        "*",
        r"OpConversionFailure|Model wasn't fully converted",
        NotApplicable,
        "the engine cannot convert some operators of this model",
        "toolkit optimize MODEL -o NEW.onnx --dim NAME=SIZE fixes shapes, which may be enough",
    ),
    (
        "*",
        r"Could not open the file|Empty or unknown model|Unable to read the model",
        InvalidModel,
        "the engine cannot read the file",
        None,
    ),
)


def from_vendor(exc: BaseException, where: object, *, doing: str) -> ToolkitError:
    """The toolkit's error for an engine's exception; raise it ``from exc``.

    Args:
        exc: what the engine raised.
        where: the model or input concerned.
        doing: "opening", "running", …; used when nothing in the table fits.
    """
    if isinstance(exc, ToolkitError):
        return exc
    names = {cls.__name__ for cls in type(exc).__mro__}
    text = str(exc)
    for name, pattern, error, what, next_step in _VENDOR_ERRORS:
        if (name == "*" or name in names) and re.search(pattern, text, re.IGNORECASE):
            return error(what, where=where, got=_vendor_text(text), next_step=next_step)
    return EngineError(f"the engine failed while {doing}", where=where, got=_vendor_text(text) or type(exc).__name__)


def _vendor_text(text: str) -> str:
    """An engine's message without its C++ locations, which help nobody who did not build the engine."""
    text = re.sub(r"(Exception from )?\S+\.(cpp|cc|hpp|h):\d+:?( \S+\([^)]*\))?", "", text)
    text = re.sub(
        r"Check '[^']*' failed at\s*|FrontEnd API failed with \w+:\s*|Failed operations detailed log:", "", text
    )
    text = re.sub(r"(?<!\S)(?:[\w:<>,&*]+ ){1,3}onnxruntime::[\w:]+\((?:[^()]|\([^()]*\))*\)( const)? ?", "", text)
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text.strip())
    return one_line(text, 300)
