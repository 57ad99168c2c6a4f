"""What every execution engine looks like from outside: a Provider opens a Session, a Session runs and proves what ran.

A provider implements three things: ``probe`` (is it there, and if not why), ``open_engine`` and an :class:`Engine` with
``run``, ``prove`` and ``close``. What an opened model does is in :mod:`toolkit.providers.session`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, final

import msgspec

from toolkit.errors import InvalidTarget, ProviderUnavailable, UsageError, from_vendor
from toolkit.files import existing_file
from toolkit.providers.prepared import Prepared as Prepared
from toolkit.providers.prepared import cached_form
from toolkit.providers.session import Engine, Session
from toolkit.targets import Precision, Target
from toolkit.tensors import nearest

if TYPE_CHECKING:
    from toolkit.providers.instruments import Instruments


class Available(msgspec.Struct, frozen=True, tag="available"):
    version: str
    devices: tuple[str, ...]


class Unavailable(msgspec.Struct, frozen=True, tag="unavailable"):
    reason: str
    remedy: str


Availability = Available | Unavailable


class Placement(msgspec.Struct, frozen=True):
    """How many nodes of each operator a provider would take, and what it would leave to another and why."""

    taken: dict[str, int]
    refused: dict[str, str] = {}


class Provider(ABC):
    """The adapter to one execution engine. Concrete providers are final: wrap one to change it."""

    name: ClassVar[str]
    """What users write."""
    accepts_onnx: ClassVar[bool] = True
    """False for providers that open something else than an ONNX file (torch)."""
    rank: ClassVar[int | None] = None
    """Order among the providers that ``provider="auto"`` tries, lowest first; None keeps it out."""
    precisions: ClassVar[tuple[Precision, ...]]
    """Precisions of files that the engine runs."""
    inference_precisions: ClassVar[tuple[str, ...]] = ()
    """Roundings a target may ask this engine to do on its own."""
    option_values: ClassVar[Mapping[str, tuple[str, ...] | type]] = {}
    """For options that do not take just anything: the values allowed, or the type."""
    extra: ClassVar[str]
    """The extra of this package that installs the engine."""
    outward_options: ClassVar[tuple[str, ...]] = ()
    """Options that reach beyond the session, to files outside the model or to the process: a stranger's bundle may not
    set them."""
    native_forms: ClassVar[bool] = True
    """Whether what :meth:`prepare` writes is machine code, which is run only where it was made or is trusted."""
    placement_rules: ClassVar[str | None] = None
    """File beside this one that says where quantization goes on this engine; None where it takes no quantized files."""

    @abstractmethod
    def probe(self, device: str = "") -> Availability:
        """Whether the engine and ``device`` are there. Never raises."""

    def missing(self, target: Target) -> Unavailable | None:
        """What else ``target`` needs that is not here, such as instructions of the CPU; None when it can be used."""
        return None

    @abstractmethod
    def open_engine(self, model: Path, target: Target) -> Engine:
        """Open ``model``; may raise the vendor's exceptions."""

    @abstractmethod
    def known_options(self) -> tuple[str, ...]:
        """Names that ``target.engine_options`` may hold; engines themselves accept misspelt ones in silence."""

    def instances(self, target: Target, count: int) -> tuple[Target, int] | None:
        """How ``count`` calls run side by side on the cores that one call would take; None where that makes no sense.

        Returns:
            The target for it, and how many engines to open of it, which share the ``count`` calls.
        """
        return None

    def place(self, model: Path, target: Target) -> Placement:
        """Which nodes of ``model`` this provider would take."""
        raise UsageError(f"{self.name} cannot say which nodes it takes")

    def prepare(self, model: Path, target: Target, folder: Path) -> Prepared | None:
        """Write the engine's ahead-of-time form of ``model`` into ``folder``; None where the engine has none."""
        return None

    def prepared_key(self, model: Path, target: Target) -> str:
        """What an ahead-of-time form is valid for: model, target, engine version and hardware, as one file name."""
        return ""

    def prepared_facts(self, target: Target) -> dict[str, str]:
        """What an ahead-of-time form depends on beside model and target: versions and hardware, for people to read."""
        return {}

    def open_prepared(self, prepared: Path, target: Target) -> Engine:
        """Open what :meth:`prepare` wrote."""
        return self.open_engine(prepared, target)

    def instruments(self, model: Path, target: Target, folder: Path) -> Instruments | None:
        """Open ``model`` once more with the engine's own instruments on; None where it has none that tell nodes apart.

        What they write goes into ``folder``.
        """
        return None

    @final
    def open_form(self, form: Path, target: Target, model: str) -> Session:
        """Open what :meth:`prepare` wrote for ``model``, from wherever it is kept; the caller vouches that it fits.

        Raises:
            ProviderUnavailable: the engine or the device is not there.
            ToolkitError: the engine does not take the form.
        """
        self.require(target)
        try:
            return Session(self.open_prepared(form, target), self.name, target, model)
        except Exception as exc:
            raise from_vendor(exc, form, doing=f"opening a prepared form on {self.name}") from exc

    @final
    def open(self, model: str | Path, target: Target | None = None, *, prepared: bool = False) -> Session:
        """Open an ONNX file (or what else the provider takes) on ``target``.

        Args:
            model: the file.
            target: how to use the engine; its defaults when None.
            prepared: open the engine's ahead-of-time form, made on first use and kept in the user's cache under a key
                of everything it depends on, so that one made for another machine, version or model is never opened.

        Raises:
            ProviderUnavailable: the engine or the device is not there; there is no other attempt.
            FileProblem, InvalidModel: the file is missing or not a model.
            NotApplicable: the engine cannot run this model.
            EngineError: anything else the engine says.
        """
        target = target or Target(name=self.name, provider=self.name)
        self.require(target)
        path = existing_file(model, "model file") if self.accepts_onnx else Path(model)
        try:
            form = self._prepared_form(path, target) if prepared else None
            engine = self.open_engine(path, target) if form is None else self.open_prepared(form, target)
            return Session(engine, self.name, target, str(model))
        except Exception as exc:
            raise from_vendor(exc, model, doing=f"opening on {self.name}") from exc

    def _prepared_form(self, model: Path, target: Target) -> Path | None:
        def make(folder: Path) -> Prepared | None:
            made = self.prepare(model, target, folder)
            facts = {} if made is None else self.prepared_facts(target)
            return made and msgspec.structs.replace(made, model=str(model.resolve()), target=target, valid_for=facts)

        return cached_form(f"{self.name}-{self.prepared_key(model, target)}", make)

    @final
    def require(self, target: Target) -> Available:
        """Check that ``target`` can be used here.

        Raises:
            ProviderUnavailable: with reason and remedy.
            InvalidTarget: an option or precision that this provider does not know.
        """
        self.check_target(target)
        found = self.availability(target)
        if isinstance(found, Unavailable):
            raise ProviderUnavailable(f"{self.name} is not available: {found.reason}", next_step=found.remedy)
        return found

    @final
    def availability(self, target: Target) -> Availability:
        """Whether the engine, ``target``'s device and what else it needs are there."""
        found = self.probe(target.device)
        return found if isinstance(found, Unavailable) else self.missing(target) or found

    @final
    def check_target(self, target: Target) -> None:
        """Check options and precisions by name, without touching the engine's device."""
        where = target.name or self.name
        for option, value in target.engine_options.items():
            self._check_option(option, value, where)
        for precision in target.precisions:
            if precision not in self.precisions:
                raise InvalidTarget(
                    f"{self.name} runs no {precision} files",
                    where=where,
                    got=precision,
                    expected=nearest(precision, self.precisions),
                )
        rounding = target.inference_precision
        if rounding and rounding not in self.inference_precisions:
            expected = nearest(rounding, self.inference_precisions) if self.inference_precisions else "none"
            raise InvalidTarget(
                f"{self.name} cannot compute in {rounding}", where=where, got=rounding, expected=expected
            )

    def _check_option(self, option: str, value: object, where: str) -> None:
        if option not in self.known_options():
            raise InvalidTarget(
                f"{self.name} has no such option",
                where=where,
                got=option,
                expected=nearest(option, self.known_options()),
            )
        allowed = self.option_values.get(option)
        place = f"{where}: option {option}"
        if isinstance(allowed, tuple) and value not in allowed:
            raise InvalidTarget("unknown value", where=place, got=repr(value), expected=nearest(str(value), allowed))
        if isinstance(allowed, type) and type(value) is not allowed:
            raise InvalidTarget(
                "wrong type", where=place, got=repr(value), expected=f"a value of type {allowed.__name__}"
            )


def first_line(exc: BaseException) -> str:
    """The first line of an exception's text, or its type's name where it has none."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
