"""Models × targets × batches into cases to measure, and cases that cannot be measured, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import msgspec

from toolkit.data import open_data
from toolkit.errors import InvalidData, NotApplicable, UsageError
from toolkit.profiler.cases import Case, Skipped
from toolkit.profiler.inputs import SETS, sizes, write_feeds
from toolkit.profiler.models import Model
from toolkit.profiler.sweeps import Setting
from toolkit.providers import registry
from toolkit.providers.base import Unavailable
from toolkit.targets import Target, shipped_targets
from toolkit.tensors import nearest

ALL = "all"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured: the default setting is the models' own batch; ``data`` "" means random inputs."""

    settings: Sequence[Setting] = (Setting(),)
    data: str = ""
    opener: str | None = None
    seed: int = 0


def wanted_targets(texts: Sequence[str | Target]) -> tuple[dict[str, Target], dict[str, str]]:
    """Targets by name, and why those among them that only ``all`` asked for cannot be used.

    Raises:
        ProviderUnavailable: one that was named is not there; nothing else is measured in its place.
        InvalidTarget: an unknown name.
    """
    found: dict[str, Target] = {}
    for item in texts:
        if item == ALL:
            continue
        target = item if isinstance(item, Target) else registry.target(item)
        registry.provider(target.provider).require(target)
        found[target.name] = target
    unavailable: dict[str, str] = {}
    if ALL in texts:
        for name, target in shipped_targets().items():
            answer = registry.availability(target)
            if isinstance(answer, Unavailable):
                unavailable[name] = f"{answer.reason}; {answer.remedy}" if answer.remedy else answer.reason
            found.setdefault(name, target)
    return found, unavailable


def plan(
    models: Sequence[Model], targets: Mapping[str, Target], unavailable: Mapping[str, str], wish: Wish, folder: Path
) -> list[Case | Skipped]:
    """Every combination, in the order of ``models``, settings, ``targets``; feeds are written into ``folder``.

    Raises:
        UsageError: a dim that no model has.
    """
    _check_dims(models, {name for setting in wish.settings for name in setting.dims})
    found: list[Case | Skipped] = []
    for model in models:
        for setting in wish.settings:
            feeds = _Feeds(model, setting.batch, wish, folder / f"{len(found)}.npz")
            for target in targets.values():
                if setting.width in (0, model.width):
                    found.append(_case(model, target, setting, wish, unavailable.get(target.name), feeds))
    return found


def _case(
    model: Model, target: Target, setting: Setting, wish: Wish, unavailable: str | None, feeds: _Feeds
) -> Case | Skipped:
    case = Case(
        model=model.name,
        path=model.path,
        target=setting.on(target),
        opener=wish.opener if model.kind == "source" else None,
        group=model.group,
        precision=model.precision,
        batch=setting.batch,
        dims=setting.dims,
        inputs=model.inputs,
        seed=wish.seed,
        size_bytes=model.size_bytes,
        model_sha256=model.sha256,
        scenario=setting.scenario,
        streams=setting.streams,
        points=setting.points,
        family=model.family or model.name,
        base=target.name,
    )
    if unavailable is not None:
        return Skipped(case=case, status="unavailable", reason=unavailable)
    try:
        model.require_fit(target, registry.provider(target.provider))
        if model.inputs is not None:
            sizes(model.inputs, setting.batch, setting.dims)
    except NotApplicable as exc:
        return Skipped(case=case, status="not_applicable", reason=str(exc))
    return msgspec.structs.replace(case, feeds=feeds.file())


class _Feeds:
    """Real samples for one model and batch, written when the first case needs them."""

    def __init__(self, model: Model, batch: int | None, wish: Wish, path: Path) -> None:
        self._model, self._batch, self._wish, self._path = model, batch, wish, path

    def file(self) -> str:
        """Where they are; "" for random inputs.

        Raises:
            InvalidData: there are not enough samples for one batch.
        """
        if not self._wish.data:
            return ""
        if not self._path.exists():
            self._write()
        return str(self._path)

    def _write(self) -> None:
        model = self._model
        size = 1 if self._batch is None else self._batch
        data = open_data(
            self._wish.data, inputs=model.inputs, preprocessing=model.preprocessing, batch_size=size, limit=SETS * size
        )
        full = [batch.feeds for batch in data if batch.count == data.batch_size]
        if not full:
            raise InvalidData(
                "too few samples for one batch", where=self._wish.data, expected=f"{data.batch_size} or more"
            )
        write_feeds(self._path, full)


def _check_dims(models: Sequence[Model], dims: Set[str]) -> None:
    if any(model.inputs is None for model in models):
        return  # only opening such a model tells its dims
    known = {dim for model in models for spec in model.inputs or () for dim in spec.dynamic_dims}
    for name in sorted(dims):
        if name not in known:
            expected = nearest(name, known) if known else "no --dim: every dim is fixed"
            raise UsageError("no model has such a dim", where="--dim", got=name, expected=expected)
