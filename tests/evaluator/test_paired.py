from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from toolkit.data import from_iterable
from toolkit.evaluator.paired import PairedOutcome, paired
from toolkit.providers.session import Session

# Four samples of three classes; the right ones are 0, 1, 2, 0.
FIRST = np.array([[3, 1, 0], [1, 2, 0], [5, 0, 4], [0, 1, 0]], np.float32)  # right, right, wrong, wrong
SECOND = np.array([[3, 1, 0], [2, 1, 0], [4, 0, 5], [0, 1, 0]], np.float32)  # right, lost, gained, wrong
LABELS = np.array([0, 1, 2, 0])


def answering(session_of: Callable[..., Session], scores: np.ndarray) -> Session:
    return session_of(lambda feeds: {"logits": scores[feeds["x"][:, 0].astype(int)]})


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(scores) / np.exp(scores).sum(1, keepdims=True))


@pytest.mark.parametrize("as_given", [lambda scores: scores, softmax], ids=["logits", "probabilities"])
def test_losses_and_gains_are_counted_apart_and_regret_is_the_first_models_own(
    as_given: Callable[[np.ndarray], np.ndarray], session_of: Callable[..., Session]
) -> None:
    numbers = np.arange(4, dtype=np.float32)[:, None].repeat(3, 1)
    data = from_iterable([{"x": numbers, "labels": LABELS}], batch_size=3)
    first, second = (answering(session_of, as_given(scores)) for scores in (FIRST, SECOND))
    found = paired(first, second, data)
    sure = softmax(FIRST)
    wanted = 100 * (sure[1, 1] - sure[1, 0] + sure[2, 0] - sure[2, 2]) / 4
    assert found == PairedOutcome(samples=4, lost=1, gained=1, expected_drop=pytest.approx(wanted, rel=1e-5))


def test_labels_that_do_not_count_are_left_out(session_of: Callable[..., Session]) -> None:
    numbers = np.arange(4, dtype=np.float32)[:, None].repeat(3, 1)
    data = from_iterable([{"x": numbers, "labels": np.array([0, -100, 2, 0])}])
    found = paired(answering(session_of, FIRST), answering(session_of, SECOND), data)
    assert found is not None
    assert (found.samples, found.lost, found.gained) == (3, 0, 1)


def test_nothing_is_said_where_labels_are_no_classes_of_samples(session_of: Callable[..., Session]) -> None:
    images = from_iterable([{"x": np.zeros((2, 3), np.float32), "labels": np.zeros((2, 3), np.float32)}])
    assert paired(answering(session_of, FIRST), answering(session_of, SECOND), images) is None


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    # By hand: ways to throw at least ``lost`` heads with ``lost + gained`` coins.
    [(0, 0, 1.0), (1, 0, 1 / 2), (2, 0, 1 / 4), (4, 2, (15 + 6 + 1) / 64), (5, 0, 1 / 32)],
)
def test_the_sign_test_is_exact(lost: int, gained: int, p_value: float) -> None:
    assert PairedOutcome(100, lost, gained, 0.0).p_value == pytest.approx(p_value)
