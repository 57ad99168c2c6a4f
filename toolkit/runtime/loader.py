"""``toolkit.load``: a bundle or a bare ONNX file in, a session out."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.bundle.kind import Verify, is_bundle
from toolkit.errors import NotApplicable, ProviderUnavailable, ToolkitError
from toolkit.files import existing_file
from toolkit.providers import registry
from toolkit.providers.session import Engine, Session
from toolkit.runtime.bare import Opening, check_bare
from toolkit.runtime.failover import Failover, FallbackWarning
from toolkit.runtime.selection import Choice, candidates
from toolkit.targets import Target

if TYPE_CHECKING:
    from toolkit.bundle.reader import Bundle
    from toolkit.runtime.sharing import BatchingWish, InstancesWish


def load(
    path: str | os.PathLike[str],
    provider: str | Target = "auto",
    *,
    fallback: Sequence[str | Target] = (),
    verify: Verify = "once",
    prepared: bool | None = None,
    trust_prepared: bool = False,
    reuse_outputs: bool = False,
    batching: BatchingWish = "off",
    instances: InstancesWish = 1,
) -> Session:
    """Open a bundle or a bare ``.onnx`` file.

    Args:
        path: a bundle folder, a packed bundle, or an ONNX file.
        provider: a provider ("cpu", "openvino:GPU", "CUDAExecutionProvider"), a target's name or file, a
            :class:`Target`, or "auto": of the providers that are here the one that the bundle measured fastest on
            hardware like this, without such measurements the first that it names, and for a bare file the first of
            tensorrt, cuda, openvino, cpu.
        fallback: what is acceptable when ``provider`` cannot be used, or fails later in the middle of a run, in order.
            Empty means nothing is. Each step is reported by a :class:`FallbackWarning` and on
            ``session.execution.notes``.
        verify: "once" checks hashes in full the first time, then by a stamp; "always" checks in full.
        prepared: whether to open the engine's ahead-of-time form (ONNX Runtime's optimized graph, OpenVINO's blob),
            which is quicker and answers the same. None takes the bundle's own where it holds here; where the bundle
            has one that does not, the reason is on ``session.notes`` and one for this machine is made in the user's
            cache. True makes one for any model; False opens the portable file.
        trust_prepared: open machine code from the bundle that was not made on this machine. It can do anything that
            this process can.
        reuse_outputs: write outputs over those of the calling thread's last call where shapes stay the same.
        batching: "auto" lets concurrent calls share batches where the model's rows are proven independent and where
            that pays, both measured now, which takes about a second; ``session.execution.notes`` say what was found. A
            :class:`toolkit.runtime.batching.Batching` asks for it with sizes and times of its own.
        instances: calls that run side by side, sharing the cores that this process may use. More than one is for
            throughput: a call that is alone takes longer. "auto" measures whether that pays, with one for each core.

    Returns:
        A session, to be used as a context manager or closed with ``close()``.

    Raises:
        ProviderUnavailable: the provider is not on this machine, with the reason and the remedy.
        NotApplicable: it is, but cannot run this model, or not with the batching or instances asked for.
        InvalidBundle, InvalidModel, FileProblem: the files do not hold.
    """
    _check_wishes(batching, instances)
    bundle = _bundle(path)
    opening = Opening(verify, prepared, trust_prepared)
    choices = candidates(provider, fallback, None if bundle is None else bundle.manifest)
    notes: list[str] = []
    for index, choice in enumerate(choices):
        try:
            session = _open(choice, path, bundle, opening)
            _share(session, choice, path, bundle, opening, batching, instances)
        except (ProviderUnavailable, NotApplicable) as exc:
            if index == len(choices) - 1:
                raise
            notes.append(_report(choice, choices[index + 1], exc))
        else:
            session.notes += tuple(notes)
            following = choices[index + 1 :] if fallback else ()
            if following:
                session.rescue = Failover(
                    session,
                    [(item.target.name, functools.partial(_open, item, path, bundle, opening)) for item in following],
                )
            if reuse_outputs:
                session.reuse_outputs()
            return session
    raise AssertionError("candidates() never returns nothing")


def _check_wishes(batching: BatchingWish, instances: InstancesWish) -> None:
    """Refuse what is no wish at all; what nothing was wished for imports nothing."""
    if batching != "off" or instances != 1 or isinstance(instances, bool):
        from toolkit.runtime.sharing import check_wishes

        check_wishes(batching, instances)


def _bundle(path: str | os.PathLike[str]) -> Bundle | None:
    """The bundle at ``path``; None for a bare file, for which nothing that reads bundles is imported."""
    if not is_bundle(path):
        existing_file(path, "model file")
        return None
    from toolkit.bundle.reader import open_bundle

    return open_bundle(path)


def _report(choice: Choice, following: Choice, exc: ToolkitError) -> str:
    text = f"{choice.target.name} could not be used ({exc}); trying {following.target.name}"
    warnings.warn(text, FallbackWarning, stacklevel=3)
    return text


def _open(choice: Choice, path: str | os.PathLike[str], bundle: Bundle | None, opening: Opening) -> Session:
    engine = registry.provider(choice.target.provider)
    if bundle is None or choice.variant is None:
        check_bare(Path(path), choice.target, opening)
        return engine.open(str(path), choice.target, prepared=bool(opening.prepared))
    from toolkit.runtime.opening import open_variant

    return open_variant(bundle, choice.variant, choice.target, opening)


def _share(
    session: Session, choice: Choice, path: str | os.PathLike[str], bundle: Bundle | None, opening: Opening,
    batching: BatchingWish, instances: InstancesWish,
) -> None:  # fmt: skip
    """Batches and instances as asked; what cannot be had takes the session with it."""
    if batching == "off" and instances == 1:
        return
    from toolkit.runtime.records import known_rows
    from toolkit.runtime.sharing import share

    provider = registry.provider(choice.target.provider)

    def side_by_side(count: int) -> tuple[Target, Sequence[Engine]] | None:
        found = provider.instances(choice.target, count)
        if found is None:
            return None
        target, opened = found
        model = str(path) if bundle is None or choice.variant is None else bundle.model_file(choice.variant)
        engines = [provider.open(model, target, prepared=bool(opening.prepared)).engine for _ in range(opened)]
        return target, [engines[index % opened] for index in range(count)]

    try:
        known = None if choice.variant is None else known_rows(choice.variant, session)
        share(session, batching, instances, side_by_side, known)
    except BaseException:
        session.close()
        raise
