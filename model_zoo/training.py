"""The training recipe: cross-entropy, mini-batches in an order fixed by a seed, one cycle of the learning rate.

Training keeps its samples in memory, preprocessed once; everything else in this project streams them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.data import Dataset
from toolkit.errors import InvalidData, MissingDependency, UsageError
from toolkit.files import write_atomic

from .entry import Recipe, ZooEntry

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
Progress = Callable[[int, int, float], None]
"""Called after each epoch with its number from 1, the number of epochs, and the mean loss."""


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What a training run did. ``test_accuracy`` is a fraction; for language models, of bytes predicted right."""

    model: str
    epochs: int
    train_samples: int
    test_samples: int
    test_accuracy: float
    losses: tuple[float, ...]
    seconds: float


def train(
    entry: ZooEntry, data: Dataset, test: Dataset, progress: Progress | None = None, *, epochs: int | None = None
) -> tuple[nn.Module, TrainReport]:
    """Train ``entry`` from its seeded random weights; the same data, torch and number of threads give the same weights.

    Args:
        entry: what to train; must have a recipe.
        data: training samples. Text models that continue texts need no labels.
        test: samples that training does not see.
        progress: called after each epoch.
        epochs: instead of the recipe's.

    Returns:
        The module in evaluation mode, and the report.

    Raises:
        UsageError: the entry has no recipe.
        InvalidData: no labels, labels out of range, or the data do not fit the model.
    """
    if entry.recipe is None:
        raise UsageError("the zoo does not train this model", where=f"zoo:{entry.name}", next_step="toolkit zoo list")
    start = time.perf_counter()
    samples, unseen = Samples.of(data, entry), Samples.of(test, entry)
    model = entry.build()
    samples.check(model, data.name)
    unseen.check(model, test.name)
    with _deterministic(entry.recipe):
        losses = _optimize(model, samples, entry.recipe, epochs or entry.recipe.epochs, progress)
    model.eval()
    return model, TrainReport(
        model=entry.name,
        epochs=len(losses),
        train_samples=len(samples),
        test_samples=len(unseen),
        test_accuracy=unseen.accuracy(model),
        losses=tuple(losses),
        seconds=time.perf_counter() - start,
    )


@dataclass(frozen=True)
class Samples:
    """Feeds by name and targets: class numbers ``(N,)``, or for language models the ids ``(N, T)`` themselves."""

    feeds: dict[str, Tensor]
    targets: Tensor
    causal: bool

    @classmethod
    def of(cls, data: Dataset, entry: ZooEntry) -> Samples:
        """Read all of ``data`` into memory."""
        causal = entry.task == "text-generation"
        if not causal and not data.has_labels:
            raise InvalidData("training needs labels", where=data.name, expected="an array 'labels'")
        batches = list(data)
        longest = {name: max(len(batch.feeds[name][0]) for batch in batches) for name in batches[0].feeds}
        feeds = {
            name: torch.from_numpy(np.concatenate([_grown(batch.feeds[name], longest[name]) for batch in batches]))
            for name in longest
        }
        if causal:
            return cls(feeds, feeds[entry.inputs[0].name], causal)
        labels = np.concatenate([batch.labels for batch in batches if batch.labels is not None])
        if labels.ndim != 1 or not np.all(labels == labels.astype(np.int64)):
            got = f"{labels.dtype}{list(labels.shape)}"
            raise InvalidData("labels are no class numbers", where=data.name, got=got, expected="integers (N,)")
        return cls(feeds, torch.from_numpy(labels.astype(np.int64)), causal)

    def __len__(self) -> int:
        return len(self.targets)

    def check(self, model: nn.Module, where: str) -> None:
        """Refuse class numbers that the model has no output for."""
        with torch.no_grad():
            classes = model(**{name: values[:1] for name, values in self.feeds.items()})["logits"].shape[-1]
        low, high = int(self.targets.min()), int(self.targets.max())
        if low < 0 or high >= classes:
            raise InvalidData("a label is out of range", where=where, got=f"{low}…{high}", expected=f"0…{classes - 1}")

    def logits_and_targets(self, model: nn.Module, rows: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor]:
        """What the model says about ``rows`` and what is right, flat: ``(M, classes)`` and ``(M,)``."""
        feeds = {name: values[rows] for name, values in self.feeds.items()}
        if noise:
            feeds = {name: _noisy(values, noise) for name, values in feeds.items()}
        logits = model(**feeds)["logits"]
        if self.causal:
            return logits[:, :-1].flatten(0, 1), self.targets[rows][:, 1:].flatten()
        return logits, self.targets[rows]

    @property
    def ignored(self) -> int:
        """The target that does not count: what texts are filled up with."""
        return 0 if self.causal else -100

    def accuracy(self, model: nn.Module) -> float:
        right = counted = 0
        with torch.no_grad():
            for rows in torch.arange(len(self)).split(256):
                logits, targets = self.logits_and_targets(model, rows)
                counts = targets != self.ignored
                right += int(((logits.argmax(-1) == targets) & counts).sum())
                counted += int(counts.sum())
        return right / max(1, counted)


def _optimize(
    model: nn.Module, samples: Samples, recipe: Recipe, epochs: int, progress: Progress | None
) -> list[float]:
    """Run the recipe; returns the mean loss of each epoch."""
    optimizer = OPTIMIZERS[recipe.optimizer](
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps = epochs * -(-len(samples) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, steps)
    order = torch.Generator().manual_seed(recipe.seed)
    model.train()
    means: list[float] = []
    for epoch in range(1, epochs + 1):
        losses = []
        for rows in torch.randperm(len(samples), generator=order).split(recipe.batch_size):
            optimizer.zero_grad()
            logits, targets = samples.logits_and_targets(model, rows, recipe.noise)
            loss = functional.cross_entropy(logits, targets, ignore_index=samples.ignored)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
        if progress is not None:
            progress(epoch, epochs, means[-1])
    return means


@contextlib.contextmanager
def _deterministic(recipe: Recipe) -> Iterator[None]:
    """Seeded dropout, kernels that give the same bits each time, the recipe's threads; then what was set before."""
    before, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(recipe.threads or threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_num_threads(threads)


def _noisy(values: Tensor, noise: float) -> Tensor:
    return values + noise * torch.randn_like(values) if values.is_floating_point() else values


def _grown(values: np.ndarray, length: int) -> np.ndarray:
    """Texts of one batch filled with zeros up to the longest of all batches."""
    missing = length - values.shape[1] if values.ndim == 2 and values.dtype.kind == "i" else 0
    return np.pad(values, ((0, 0), (0, missing))) if missing else values


def save_weights(model: nn.Module, path: Path, name: str) -> Path:
    """Write the state dict as safetensors, whole or not at all; weights that two names share are written under both."""
    try:
        from safetensors.torch import save
    except ImportError as exc:
        raise MissingDependency.of("safetensors", "export", "writing weights") from exc
    state = {key: value.detach().clone().contiguous() for key, value in model.state_dict().items()}
    return write_atomic(path, save(state, metadata={"model": f"zoo:{name}"}))
