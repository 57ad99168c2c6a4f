"""Evaluation end to end on sessions whose answers are known: tasks, state, batches, own metrics, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.data import from_iterable, open_data, write_npz
from toolkit.errors import FileProblem, InvalidData, InvalidInput, ToolkitError, UsageError
from toolkit.evaluator.api import evaluate
from toolkit.preprocess import InputSteps, Preprocessing, Scale, Tokenize
from toolkit.providers.session import Session
from toolkit.tensors import Feeds

SessionOf = Callable[..., Session]
GENERATOR = np.random.default_rng(0)
SCORES = GENERATOR.standard_normal((50, 3)).astype(np.float32)
TRUTH = np.where(GENERATOR.random(50) < 0.8, SCORES.argmax(1), GENERATOR.integers(0, 3, 50))


def identity(feeds: Feeds) -> dict[str, np.ndarray]:
    return {"logits": feeds["x"]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "data.npz", {"x": SCORES, "labels": TRUTH})


def test_classification_is_scikit_learns(session_of: SessionOf, data: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    report = evaluate(session_of(identity), data, batch_size=7, top_k=(1, 2))
    predicted = SCORES.argmax(1)
    assert (report.task, report.samples, report.non_finite) == ("classification", 50, 0)
    assert report.metrics["accuracy"] == metrics.accuracy_score(TRUTH, predicted)
    assert report.metrics["top_2_accuracy"] == metrics.top_k_accuracy_score(TRUTH, SCORES, k=2)
    for average in ("macro", "micro", "weighted"):
        assert report.metrics[f"f1_{average}"] == pytest.approx(metrics.f1_score(TRUTH, predicted, average=average))
    assert report.confusion == tuple(map(tuple, metrics.confusion_matrix(TRUTH, predicted).tolist()))
    assert report.errors == int((predicted != TRUTH).sum())
    low, high = report.intervals["accuracy"]
    assert low < report.metrics["accuracy"] < high
    assert [item.support for item in report.per_class] == np.bincount(TRUTH).tolist()
    assert report.data_sha256 == open_data(data).sha256


@pytest.mark.parametrize("batch", [1, 8, 50, 64])
def test_batches_do_not_change_the_result(session_of: SessionOf, data: Path, batch: int) -> None:
    seen: list[int] = []

    def fixed(feeds: Feeds) -> dict[str, np.ndarray]:
        seen.append(len(feeds["x"]))
        return identity(feeds)

    wanted = evaluate(session_of(identity), data)
    steps: list[int] = []
    found = evaluate(session_of(fixed, inputs=(f"x:float32[{batch},3]",)), data, progress=steps.append)
    assert found == wanted
    assert set(seen) == {batch} and sum(steps) == 50


def test_equal_scores_go_to_the_lower_class(session_of: SessionOf) -> None:
    report = evaluate(session_of(identity), [(np.zeros((3, 3), np.float32), np.array([0, 1, 2]))], top_k=(1, 2))
    assert report.metrics["accuracy"] == pytest.approx(1 / 3)
    assert report.metrics["top_2_accuracy"] == pytest.approx(2 / 3)


def test_scores_that_are_not_numbers_count_as_wrong(session_of: SessionOf) -> None:
    scores = np.array([[1, 0, 0], [np.nan, 5, 0], [np.inf, 0, 0], [-np.inf, 1, 0]], np.float32)
    report = evaluate(session_of(identity), [(scores, np.array([0, 1, 0, 1]))])
    assert (report.non_finite, report.errors, report.metrics["accuracy"]) == (2, 2, 0.5)
    assert "2 samples have scores that are not finite; they count as wrong" in report.notes


def test_positions_are_scored_and_ignored_ones_are_not(session_of: SessionOf) -> None:
    logits = np.eye(4, dtype=np.float32)[[[0, 1, 2], [3, 0, 0]]]
    session = session_of(lambda feeds: {"logits": logits}, inputs=("x:int64[batch,time]",))
    labels = np.array([[0, 1, 1], [3, -100, -100]])
    report = evaluate(session, [{"x": np.zeros((2, 3), np.int64), "labels": labels}])
    assert (report.metrics["accuracy"], report.errors) == (0.75, 1)
    with pytest.raises(InvalidData, match="every label says that it does not count"):
        evaluate(session, [{"x": np.zeros((2, 3), np.int64), "labels": np.full((2, 3), -100)}])


def uniform(feeds: Feeds) -> dict[str, np.ndarray]:
    return {"logits": np.zeros((*feeds["input_ids"].shape, 8), np.float32)}


def test_perplexity_of_a_uniform_model_is_its_vocabulary(session_of: SessionOf) -> None:
    session = session_of(uniform, inputs=("input_ids:int64[batch,time]",))
    report = evaluate(session, [{"input_ids": GENERATOR.integers(1, 8, (4, 9))}])
    assert report.task == "text-generation"
    assert report.metrics["perplexity"] == pytest.approx(8)
    assert report.metrics["nats_per_token"] == pytest.approx(np.log(8))
    assert report.metrics["tokens"] == 4 * 8


def test_perplexity_is_torchs_and_leaves_padding_out(session_of: SessionOf) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    table = GENERATOR.standard_normal((11, 11)).astype(np.float32) * 3
    ids = GENERATOR.integers(1, 11, (5, 130))  # longer than a block of positions
    mask = (np.arange(130) < np.array([[130], [70], [3], [1], [64]])).astype(np.int64)
    ids = np.where(mask, ids, 0)
    session = session_of(
        lambda feeds: {"logits": table[feeds["input_ids"]]},
        inputs=("input_ids:int64[batch,time]", "attention_mask:int64[batch,time]"),
    )
    report = evaluate(session, [{"input_ids": ids, "attention_mask": mask}], batch_size=2)
    targets = torch.from_numpy(np.where(mask, ids, -100))[:, 1:].flatten()
    logits = torch.from_numpy(table[ids])[:, :-1].flatten(0, 1).double()
    wanted = float(torch.nn.functional.cross_entropy(logits, targets))
    assert report.metrics["nats_per_token"] == pytest.approx(wanted, rel=1e-9)
    assert report.metrics["tokens"] == mask.sum() - 5
    low, high = report.intervals["nats_per_token"]
    assert low < wanted < high


def test_recorded_padding_is_left_out_without_a_mask(session_of: SessionOf) -> None:
    session = session_of(uniform, inputs=("input_ids:int64[batch,time]",))
    recipe = Preprocessing((InputSteps("input_ids", (Tokenize("characters", tuple("_abc")),), "text"),))
    report = evaluate(session, [{"text": np.array(["abc", "a"])}], preprocessing=recipe)
    assert report.metrics["tokens"] == 2
    with pytest.raises(InvalidData, match="no token has one that follows it"):
        evaluate(session, [{"text": np.array(["a", "b"])}], preprocessing=recipe)


def test_psnr_is_its_definition(session_of: SessionOf) -> None:
    image = GENERATOR.random((3, 1, 4, 4)).astype(np.float32)
    session = session_of(
        lambda feeds: {"y": feeds["x"]}, inputs=("x:float32[batch,1,4,4]",), outputs=("y:float32[b,1,4,4]",)
    )
    report = evaluate(session, [{"x": image + np.float32(0.1), "labels": image}])
    assert report.task == "image-to-image" and report.errors is None
    assert report.metrics["psnr_db"] == pytest.approx(20, abs=1e-3)
    assert report.metrics["mae"] == pytest.approx(0.1, abs=1e-6)
    bytes_ = np.full((1, 1, 4, 4), 100, np.uint8)
    report = evaluate(session, [{"x": bytes_ + np.float32(25.5), "labels": bytes_}], task="image-to-image")
    assert report.metrics["psnr_db"] == pytest.approx(20, abs=1e-3)


def running_sum(feeds: Feeds) -> dict[str, np.ndarray]:
    assert feeds["x"].shape == (1, 1)
    return {"logits": feeds["state"] * np.array([1, -1], np.float32), "state_out": feeds["state"] + feeds["x"]}


def test_state_goes_from_step_to_step_and_starts_anew_with_a_sequence(session_of: SessionOf, tmp_path: Path) -> None:
    session = session_of(
        running_sum,
        inputs=("x:float32[batch,1]", "state:float32[batch,1]"),
        outputs=("logits:float32[b,2]", "state_out:float32[b,1]"),
    )
    x = np.array([[1], [1], [-5], [-7], [1]], np.float32)
    columns = {"x": x, "labels": np.array([0, 0, 0, 0, 1])}
    path = write_npz(
        tmp_path / "s.npz", {**columns, "sequence": np.array([0, 0, 0, 1, 1])}, state={"state": "state_out"}
    )
    # States before each step: 0 1 2 | 0 -7
    assert evaluate(session, path, batch_size=4).metrics["accuracy"] == 1.0
    one = write_npz(tmp_path / "one.npz", columns, state={"state": "state_out"})
    # Without sequences: 0 1 2 -3 -10
    assert evaluate(session, one).metrics["accuracy"] == 0.8
    given = {**columns, "sequence": np.array([0, 0, 0, 1, 1]), "state": np.full((5, 1), -100, np.float32)}
    path = write_npz(tmp_path / "given.npz", given, state={"state": "state_out"})
    assert evaluate(session, path).errors == 4
    wrong = write_npz(tmp_path / "wrong.npz", columns, state={"state": "stat_out"})
    with pytest.raises(UsageError, match=r"an output that the model does not have; got stat_out; expected 'state_out'"):
        evaluate(session, wrong)


def mean_score(outputs: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
    return {"mean": float(outputs["logits"].mean()), "count": len(labels)}


class Counting:
    def __init__(self) -> None:
        self.batches = 0

    def update(self, outputs: dict[str, np.ndarray], labels: np.ndarray) -> None:
        self.batches += 1

    def result(self) -> float:
        return self.batches


def test_a_metric_of_the_users_own(session_of: SessionOf, data: Path, tmp_path: Path) -> None:
    report = evaluate(session_of(identity), data, metric=mean_score, batch_size=9)
    assert report.metrics == {"mean": pytest.approx(SCORES.mean()), "count": 50} and report.task == "custom"
    assert evaluate(session_of(identity), data, metric=Counting, batch_size=9).metrics == {"Counting": 6}
    file = tmp_path / "mine.py"
    file.write_text(
        "def first(outputs, labels): return labels[0]\ndef bad(outputs, labels): return 'x'\ndef worse(): pass\n"
    )
    assert evaluate(session_of(identity), data, metric=f"{file}:first").metrics == {"first": TRUTH[0]}
    for name, message in (
        ("bad", "--metric bad: the metric gives no numbers; got str"),
        ("worse", "--metric worse: the metric raised an error; got TypeError"),
        ("frist", "got frist; expected 'first'"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(session_of(identity), data, metric=f"{file}:{name}")


def test_recorded_preprocessing_is_used_unless_another_is_given(
    session_of: SessionOf, tmp_path: Path, data: Path
) -> None:
    session = session_of(identity)
    session.preprocessing = Preprocessing((InputSteps("x", (Scale(-1),)),))
    assert evaluate(session, data).metrics["accuracy"] == (SCORES.argmin(1) == TRUTH).mean()
    file = tmp_path / "p.json"
    file.write_text('{"inputs": [{"input": "x", "steps": [{"step": "scale"}]}]}')
    assert evaluate(session, data, preprocessing=file).metrics["accuracy"] == (SCORES.argmax(1) == TRUTH).mean()


def test_datasets_iterables_and_limits(session_of: SessionOf, data: Path) -> None:
    session = session_of(identity)
    whole = open_data(data, inputs=session.inputs)
    assert evaluate(session, whole.take(0, 20)).metrics == evaluate(session, data, limit=20).metrics
    assert evaluate(session, from_iterable([(SCORES, TRUTH)], inputs=session.inputs), limit=5).samples == 5
    assert session({"x": SCORES})["logits"].shape == (50, 3)  # still open


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ({"y": SCORES, "labels": TRUTH}, {}, InvalidData, "there is no array 'x', which the model needs"),
        ({"x": SCORES.astype(np.float64), "labels": TRUTH}, {}, InvalidInput, "wrong dtype; got float64"),
        ({"x": SCORES}, {}, UsageError, "cannot tell what to score; got no labels, outputs [32, 3]"),
        ({"x": SCORES}, {"task": "classification"}, InvalidData, "there are no labels; expected an array 'labels'"),
        ({"x": SCORES, "labels": TRUTH + 1}, {}, InvalidData, "a label is out of range; got 3; expected 0…2"),
        ({"x": SCORES, "labels": TRUTH - 1}, {}, InvalidData, "a label is out of range; got -1; expected 0…2"),
        ({"x": SCORES, "labels": TRUTH + 0.5}, {"task": "classification"}, InvalidData, "labels are no class numbers"),
        (
            {"x": SCORES, "labels": SCORES[:, :2]},
            {"task": "classification"},
            InvalidData,
            "labels are no class numbers",
        ),
        ({"x": SCORES, "labels": TRUTH}, {"task": "image-to-image"}, InvalidData, "outputs and labels differ in shape"),
        (
            {"x": SCORES, "labels": TRUTH},
            {"task": "clasification"},
            UsageError,
            "'classification' (did you mean that?)",
        ),
        ({"x": SCORES, "labels": TRUTH}, {"task": "text-generation"}, UsageError, "a language model takes token ids"),
        ({"x": SCORES, "labels": TRUTH}, {"output": "logit"}, UsageError, "the model has no such output; got logit"),
        ({"x": SCORES, "labels": TRUTH}, {"preprocessing": "no.json"}, FileProblem, "no such preprocessing file"),
        ({"x": SCORES, "labels": TRUTH}, {"metric": "nothing"}, UsageError, "expected MODULE:FUNCTION or FILE.py"),
    ],
)
def test_bad_input_is_one_line(
    session_of: SessionOf, tmp_path: Path, arrays: dict[str, np.ndarray], options: dict[str, Any],
    error: type[ToolkitError], message: str,
) -> None:  # fmt: skip
    path = write_npz(tmp_path / "d.npz", arrays)
    with pytest.raises(error) as caught:
        evaluate(session_of(identity), path, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_labels_that_do_not_go_with_the_output(session_of: SessionOf) -> None:
    session = session_of(
        lambda feeds: {"a": feeds["x"][:, :1], "b": feeds["x"]}, outputs=("a:float32[n,1]", "b:float32[n,3]")
    )
    batch = [(SCORES, TRUTH)]
    with pytest.raises(UsageError, match="which output is to be scored"):
        evaluate(session, batch)
    with pytest.raises(
        InvalidData, match=r"do not go together; got 'a' \[32, 1\], labels \[32\].*a --metric of your own"
    ):
        evaluate(session, batch, output="a", task="classification")
    assert evaluate(session, batch, output="b").metrics["accuracy"] == (SCORES.argmax(1) == TRUTH).mean()


def test_folders_named_after_classes_must_be_all_of_them(session_of: SessionOf, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    session = session_of(lambda feeds: {"logits": feeds["x"][:, 0, 0].astype(np.float32)}, inputs=("x:uint8[n,2,2,3]",))
    for index, name in enumerate(("blue", "green", "red")):
        (tmp_path / name).mkdir()
        color = tuple(255 * (channel == index) for channel in range(3))
        image.new("RGB", (2, 2), color).save(tmp_path / name / "a.png")
    report = evaluate(session, tmp_path)
    assert report.metrics["accuracy"] == 1 and report.labels == ("blue", "green", "red")
    (tmp_path / "green" / "a.png").unlink()
    with pytest.raises(InvalidData, match="which classes of the model are these folders.*got 2 folders, 3 classes"):
        evaluate(session, tmp_path)


def test_the_report_is_json(session_of: SessionOf, data: Path) -> None:
    from toolkit.cli.options import builtins

    plain = json.loads(json.dumps(builtins(evaluate(session_of(identity), data))))
    assert plain["samples"] == 50 and len(plain["confusion"]) == 3 and plain["intervals"]["accuracy"][0] < 1
