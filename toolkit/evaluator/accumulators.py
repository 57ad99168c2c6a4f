"""Tasks: each adds up batch after batch in constant memory and says what it found at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, final

import numpy as np

from toolkit.data import Batch
from toolkit.errors import InvalidData
from toolkit.evaluator.report import Findings
from toolkit.evaluator.scores import AVERAGES, ClassScores, averaged, per_class, ratio_interval, wilson
from toolkit.tensors import Array

# The label that does not count, as in torch's cross-entropy and in transformers.
IGNORED = -100
# Beyond this a confusion matrix is data for nobody.
MAX_CONFUSION = 100
# Positions whose logits are held in float64 at a time: vocabularies have 50,000 entries and more.
BLOCK = 64


class Accumulator(Protocol):
    """One task. ``update`` gets outputs with as many rows as the batch has samples."""

    def update(self, outputs: Mapping[str, Array], batch: Batch) -> None: ...

    def result(self) -> Findings: ...


def labels_of(batch: Batch, where: str) -> Array:
    """The batch's labels.

    Raises:
        InvalidData: there are none.
    """
    if batch.labels is None:
        raise InvalidData("there are no labels", where=where, expected="an array 'labels', or class folders")
    return batch.labels


def _integers(labels: Array, where: str) -> Array:
    # Class numbers are often stored as floats; what has a fraction counts nothing.
    whole = labels.dtype.kind in "iub" or (labels.dtype.kind == "f" and bool(np.all(labels == np.rint(labels))))
    if not whole:
        raise InvalidData(
            "labels are no class numbers", where=where, got=f"{labels.dtype} {list(labels.shape)}",
            expected="whole numbers",
        )  # fmt: skip
    return labels.astype(np.int64)


@final
class Classification:
    """Scores ``(…, C)`` of one output against class numbers ``(…)``: one per sample, or one per position."""

    def __init__(self, output: str, top_k: Sequence[int], names: Sequence[str], where: str) -> None:
        self._output, self._names, self._where = output, names, where
        self._top_k = sorted(set(top_k) | {1})
        self._confusion = np.zeros((0, 0), np.int64)
        self._missed = np.zeros(0, np.int64)
        self._hits = dict.fromkeys(self._top_k, 0)
        self._non_finite = 0

    def update(self, outputs: Mapping[str, Array], batch: Batch) -> None:
        scores, labels = outputs[self._output], _integers(labels_of(batch, self._where), self._where)
        if scores.shape[:-1] != labels.shape or scores.shape[-1] < 2:
            raise InvalidData(
                "outputs and labels do not go together",
                where=self._where,
                got=f"'{self._output}' {list(scores.shape)}, labels {list(labels.shape)}",
                expected="scores (…, classes) and class numbers (…)",
                next_step="name the --task, the --scored-output, or a --metric of your own",
            )
        counted = labels.ravel() != IGNORED
        scores, labels = scores.reshape(-1, scores.shape[-1])[counted], labels.ravel()[counted]
        self._check_range(labels, scores.shape[1])
        self._add(scores, labels)

    def _check_range(self, labels: Array, classes: int) -> None:
        outside = labels[(labels < 0) | (labels >= classes)]
        if outside.size:
            raise InvalidData(
                "a label is out of range", where=self._where, got=int(outside[0]), expected=f"0…{classes - 1}"
            )

    def _add(self, scores: Array, labels: Array) -> None:
        classes = scores.shape[1]
        if not self._confusion.size:
            self._confusion, self._missed = np.zeros((classes, classes), np.int64), np.zeros(classes, np.int64)
        # -inf is how models rule classes out; NaN and +inf are numbers that went wrong.
        finite = (scores < np.inf).all(1)
        self._non_finite += int((~finite).sum())
        np.add.at(self._missed, labels[~finite], 1)
        scores, labels = scores[finite], labels[finite]
        np.add.at(self._confusion, (labels, scores.argmax(1)), 1)
        ranks = _ranks(scores, labels)
        for k in self._top_k:
            self._hits[k] += int((ranks < k).sum())

    def result(self) -> Findings:
        total = int(self._confusion.sum() + self._missed.sum())
        if not total:
            raise InvalidData("every label says that it does not count", where=self._where, got=IGNORED)
        classes = len(self._missed)
        shares = {_top_name(k): hits for k, hits in self._hits.items() if k == 1 or k < classes}
        metrics = {name: hits / total for name, hits in shares.items()}
        for average in AVERAGES:
            values = averaged(self._confusion, self._missed, average)
            metrics |= {
                f"{name}_{average}": value for name, value in zip(("precision", "recall", "f1"), values, strict=True)
            }
        notes = (f"{self._non_finite} samples have scores that are not finite; they count as wrong",)
        return Findings(
            metrics=metrics,
            intervals={name: wilson(hits, total) for name, hits in shares.items()},
            per_class=self._per_class(),
            confusion=tuple(map(tuple, self._confusion.tolist())) if classes <= MAX_CONFUSION else None,
            errors=total - self._hits[1],
            non_finite=self._non_finite,
            notes=notes if self._non_finite else (),
        )

    def _per_class(self) -> tuple[ClassScores, ...]:
        precision, recall, f1, support = per_class(self._confusion, self._missed)
        occurring = np.flatnonzero((support > 0) | (self._confusion.sum(0) > 0)).tolist()
        return tuple(
            ClassScores(
                self._name(index), float(precision[index]), float(recall[index]), float(f1[index]), int(support[index])
            )
            for index in occurring
        )

    def _name(self, index: int) -> str:
        return self._names[index] if index < len(self._names) else str(index)


def _top_name(k: int) -> str:
    return "accuracy" if k == 1 else f"top_{k}_accuracy"


def _ranks(scores: Array, labels: Array) -> Array:
    """How many classes come before the right one; of equal scores the lower class number comes first."""
    right = np.take_along_axis(scores, labels[:, None], 1)
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
    return np.asarray(((scores > right) | ((scores == right) & earlier)).sum(1))


@final
class LanguageModel:
    """Logits ``(N, T, V)`` of one output against the token that follows each position.

    Tokens come from ``labels (N, T)`` where the data have them (-100 does not count), else from the model's own ids;
    of these, positions that the attention mask leaves out, or that hold ``pad``, do not count.
    """

    def __init__(self, output: str, ids: str, mask: str | None, pad: int | None, where: str) -> None:
        self._output, self._ids, self._mask, self._pad, self._where = output, ids, mask, pad, where
        self._nats: list[float] = []
        self._tokens: list[int] = []
        self._right = self._non_finite = 0

    def update(self, outputs: Mapping[str, Array], batch: Batch) -> None:
        logits = outputs[self._output]
        targets = self._targets(batch)
        if logits.ndim != 3 or targets.shape != logits.shape[:2]:
            raise InvalidData(
                "outputs and tokens do not go together",
                where=self._where,
                got=f"'{self._output}' {list(logits.shape)}, tokens {list(targets.shape)}",
                expected="logits (N, T, vocabulary) and tokens (N, T)",
            )
        outside = targets[(targets != IGNORED) & ((targets < 0) | (targets >= logits.shape[2]))]
        if outside.size:
            got, expected = int(outside[0]), f"0…{logits.shape[2] - 1}"
            raise InvalidData("a token is out of range", where=self._where, got=got, expected=expected)
        for row, following in zip(logits, targets, strict=True):
            self._add(row[:-1], following[1:])

    def _targets(self, batch: Batch) -> Array:
        if batch.labels is not None:
            return _integers(batch.labels, self._where)
        ids = batch.feeds[self._ids][: batch.count].astype(np.int64)
        counted = np.ones(ids.shape, bool) if self._mask is None else batch.feeds[self._mask][: batch.count] != 0
        return np.where(counted & (ids != self._pad), ids, IGNORED)

    def _add(self, logits: Array, targets: Array) -> None:
        """One text: ``(T, V)`` and ``(T,)``."""
        counted = targets != IGNORED
        logits, targets = logits[counted], targets[counted]
        if not targets.size:
            return
        nats = sum(_nats(logits[at : at + BLOCK], targets[at : at + BLOCK]) for at in range(0, len(targets), BLOCK))
        self._non_finite += not math.isfinite(nats)
        self._nats.append(nats)
        self._tokens.append(len(targets))
        self._right += int((logits.argmax(1) == targets).sum())

    def result(self) -> Findings:
        nats, tokens = np.array(self._nats), np.array(self._tokens)
        total = int(tokens.sum())
        if not total:
            raise InvalidData(
                "no token has one that follows it", where=self._where, expected="texts of 2 tokens or more"
            )
        mean = float(nats.sum()) / total
        found = ratio_interval(nats, tokens)
        intervals = {} if found is None else {"nats_per_token": found, "perplexity": (_exp(found[0]), _exp(found[1]))}
        return Findings(
            metrics={
                "perplexity": _exp(mean), "nats_per_token": mean, "token_accuracy": self._right / total,
                "tokens": float(total),
            },
            intervals=intervals,
            non_finite=self._non_finite,
            notes=(f"{self._non_finite} texts have logits that are not finite",) if self._non_finite else (),
        )  # fmt: skip


def _nats(logits: Array, targets: Array) -> float:
    """Sum of ``-log softmax(logits)[target]`` over the rows, in float64."""
    logits = logits.astype(np.float64)
    peaks = logits.max(1)
    with np.errstate(invalid="ignore", over="ignore"):
        totals = peaks + np.log(np.exp(logits - peaks[:, None]).sum(1))
        return float((totals - logits[np.arange(len(targets)), targets]).sum())


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


@final
class Reconstruction:
    """One output against labels of its shape: PSNR per sample, and errors over all of them.

    ``peak`` is the largest value there can be: by default 255 for integer labels, else 1.
    """

    def __init__(self, output: str, peak: float | None, where: str) -> None:
        self._output, self._peak, self._where = output, peak, where
        self._squares: list[float] = []
        self._absolutes: list[float] = []
        self._non_finite = 0

    def update(self, outputs: Mapping[str, Array], batch: Batch) -> None:
        result, wanted = outputs[self._output], labels_of(batch, self._where)
        if result.shape != wanted.shape:
            got = f"'{self._output}' {list(result.shape)}, labels {list(wanted.shape)}"
            raise InvalidData("outputs and labels differ in shape", where=self._where, got=got)
        self._peak = self._peak or (255.0 if wanted.dtype.kind in "iu" else 1.0)
        difference = (result.astype(np.float64) - wanted.astype(np.float64)).reshape(len(wanted), -1)
        self._non_finite += int((~np.isfinite(difference)).any(1).sum())
        self._squares += (difference**2).mean(1).tolist()
        self._absolutes += np.abs(difference).mean(1).tolist()

    def result(self) -> Findings:
        assert self._peak is not None
        squares = np.array(self._squares)
        with np.errstate(divide="ignore"):
            decibels = 10 * np.log10(self._peak**2 / squares)
        interval = ratio_interval(decibels, np.ones(len(decibels))) if np.isfinite(decibels).all() else None
        return Findings(
            metrics={
                "psnr_db": float(decibels.mean()), "rmse": float(np.sqrt(squares.mean())),
                "mae": float(np.mean(self._absolutes)),
            },
            intervals={} if interval is None else {"psnr_db": interval},
            non_finite=self._non_finite,
            notes=(f"{self._non_finite} samples have outputs that are not finite",) if self._non_finite else (),
        )  # fmt: skip
