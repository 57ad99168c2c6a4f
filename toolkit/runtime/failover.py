"""A provider that dies at run time: the next one that is acceptable takes its place, and the call is answered there."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import final

from toolkit.errors import EngineError, ToolkitError
from toolkit.providers.session import Engine, Session
from toolkit.tensors import Array, Feeds, example_inputs


class FallbackWarning(UserWarning):
    """A provider that was asked for could not be used, and a fallback that was allowed took its place."""


Opener = tuple[str, Callable[[], Session]]
"""What a fallback is called, and how it is opened."""


@final
class Failover:
    """Answers calls whose engine failed, by the fallbacks in order; the first that answers is used from then on.

    An engine that fails on one input and runs on another one is not dead: then the fallback answers that call alone.

    Args:
        session: whose rescue this is.
        fallbacks: opened when they are needed.
    """

    def __init__(self, session: Session, fallbacks: Sequence[Opener]) -> None:
        self._session = session
        self._waiting = list(fallbacks)
        self._open: list[Session] = []
        self._lock = threading.Lock()

    def __call__(self, failed: Engine, feeds: Feeds, error: EngineError) -> dict[str, Array]:
        """The answer to ``feeds``, on which ``failed`` raised ``error``.

        Raises:
            EngineError: the first one, when no fallback has an answer either.
        """
        with self._lock:
            if self._session.engine is not failed:  # another caller has moved it meanwhile
                return self._session.run(feeds)
            for fallback in self._fallbacks():
                try:
                    answer = fallback.run(feeds)
                except ToolkitError:
                    continue
                self._settle(failed, fallback, error)
                return answer
            raise error

    def _fallbacks(self) -> Iterator[Session]:
        """Those that are open, then the rest, opened one after the other; what does not open is passed over."""
        yield from self._open
        while self._waiting:
            name, opened = self._waiting.pop(0)
            try:
                self._open.append(opened())
            except ToolkitError as exc:
                self._session.notes += (f"fallback {name} could not be opened: {exc}",)
                continue
            yield self._open[-1]

    def _settle(self, failed: Engine, fallback: Session, error: EngineError) -> None:
        """Move the session to ``fallback`` if the engine is dead; say what happened in either case."""
        session = self._session
        dead = not _runs(failed, session)
        what = "takes its place" if dead else "answered this call"
        text = f"{session.target.name} failed ({error}); {fallback.target.name} {what}"
        if dead:
            self._open.remove(fallback)
            session.move_to(fallback)
        session.notes += (text,)
        warnings.warn(text, FallbackWarning, stacklevel=4)

    def close(self) -> None:
        for fallback in self._open:
            fallback.close()


def _runs(engine: Engine, session: Session) -> bool:
    """Whether ``engine`` runs on inputs that are nobody's."""
    try:
        engine.run(example_inputs(session.inputs))
    except Exception:  # noqa: BLE001 - whatever it is, the engine does not run
        return False
    return True
