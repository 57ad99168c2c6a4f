from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.quantizer.small import HEAD, MATMUL, Items, vectors
from toolkit.errors import (
    InvalidData,
    NotApplicable,
    ParityError,
    ProviderUnavailable,
    ToolkitError,
    UsageError,
)
from toolkit.graph.facts import facts
from toolkit.providers import registry
from toolkit.quantizer import race as race_module
from toolkit.quantizer.api import quantize
from toolkit.quantizer.calibration.record import read_record
from toolkit.targets import Target
from toolkit.tensors import Array


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Races of a few rounds."""
    monkeypatch.setattr(race_module, "BUDGET_S", 0.0)
    monkeypatch.setattr(race_module, "BLOCK_NS", 1)


@pytest.mark.parametrize("method", ["static", "dynamic", "weight-only", "float16"])
def test_each_method_writes_a_checked_file_and_says_what_it_did(
    method: str, cnn: Path, images: Items, tmp_path: Path
) -> None:
    output = tmp_path / "out.onnx"
    report = quantize(cnn, output, method=method, calibration=images)  # type: ignore[arg-type]  # a name
    assert report.quantized
    assert report.outputs[0].snr_db > 30
    assert facts(output).precision == report.precision
    assert report.size_bytes_after == output.stat().st_size
    assert (report.target, report.checked_on) == ("cpu", "cpu")
    assert report.calibration_samples == (32 if method == "static" else 0)
    assert "toolkit.quantization" in facts(output).metadata
    msgspec.json.encode(report)


def test_the_same_twice_is_the_same_bytes(cnn: Path, images: Items, tmp_path: Path) -> None:
    hashes = [
        quantize(cnn, tmp_path / f"{name}.onnx", method="static", calibration=images, observer="mse").sha256
        for name in ("a", "b")
    ]
    assert hashes[0] == hashes[1]


def test_one_record_serves_every_placement(cnn: Path, images: Items, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    # An iterator is spent when the record is made, so that neither run has samples to correct biases by.
    first = quantize(cnn, tmp_path / "a.onnx", method="static", calibration=iter(images), record=record)
    assert read_record(record).samples == 32
    again = quantize(cnn, tmp_path / "b.onnx", method="static", calibration=record)
    assert again.sha256 == first.sha256
    other = quantize(cnn, tmp_path / "c.onnx", method="static", target="tensorrt", calibration=record)
    assert other.quantized["Conv"] == 3
    assert other.checked_on == "cpu"
    assert "tensorrt is not available here" in " ".join(other.notes)


def test_a_record_of_another_model_is_refused(cnn: Path, block: Path, images: Items, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    quantize(cnn, tmp_path / "a.onnx", method="static", calibration=images, record=record)
    with pytest.raises(UsageError, match="made from another model"):
        quantize(block, tmp_path / "b.onnx", method="static", calibration=record)


@pytest.mark.parametrize("opset", [8, 9, 11])
def test_old_opsets_are_upgraded_and_that_is_said(opset: int, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 3, 8, 8]), helper.make_tensor_value_info("w", 1, [4, 3, 3, 3])],
        [helper.make_tensor_value_info("y", 1, ["N", 4, 6, 6])],
        [numpy_helper.from_array(weight, "w")],
    )
    source = tmp_path / "old.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3), source)
    items = [{"x": np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)}]
    report = quantize(source, tmp_path / "out.onnx", method="static", calibration=items)
    assert (report.opset_before, report.opset_after) == (opset, 13)
    assert any(note.startswith(f"opset {opset} to 13") for note in report.notes)
    assert report.quantized == {"Conv": 1}  # its weight was listed among the inputs
    assert [spec.name for spec in facts(tmp_path / "out.onnx").inputs] == ["x"]


def test_unnamed_and_equally_named_nodes(tmp_path: Path, write: Callable[..., Path]) -> None:
    source = write(HEAD + "g (float[N,16] x) => (float[N,16] y) { a = MatMul(x, w)\n r = Relu(a)\n y = MatMul(r, v) }",
                   {"w": (16, 16), "v": (16, 16)})  # fmt: skip
    model = onnx.load(source)
    for node in model.graph.node:
        node.name = "same"
    onnx.save(model, source)
    report = quantize(source, tmp_path / "out.onnx", method="static", calibration=vectors())
    assert report.quantized == {"MatMul": 2}
    names = [node.name for node in onnx.load(tmp_path / "out.onnx").graph.node]
    assert len(set(names)) == len(names)


def test_kept_nodes_are_reported(block: Path, sequences: Items, tmp_path: Path) -> None:
    first = quantize(block, tmp_path / "a.onnx", method="static", calibration=sequences)
    report = quantize(block, tmp_path / "b.onnx", method="static", calibration=sequences, keep_float=("MatMul_1",))
    assert report.quantized["MatMul"] == first.quantized["MatMul"] - 1
    assert any(item.reason == "kept in float on request" for item in report.left)


def raising(images: Items) -> Iterator[dict[str, Array]]:
    yield images[0]
    raise OSError("disk gone")


def nan(images: Items) -> Items:
    images[1]["x"][0] = np.nan
    return images


@pytest.mark.parametrize(
    ("calibration", "error", "message"),
    [
        (lambda images: [], InvalidData, "no samples"),
        (nan, InvalidData, "NaN in the calibration data"),
        (lambda images: lambda: raising(images), InvalidData, "failed after 1 batches; got OSError: disk gone"),
        (lambda images: [{"y": images[0]["x"]}], InvalidData, "no array 'x'"),
        (lambda images: "missing.npz", ToolkitError, "no such"),
        (lambda images: "missing.json", ToolkitError, "no such calibration record"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["static", "auto"])
def test_bad_samples_get_one_line_and_no_file(
    calibration: Callable[[Items], object], error: type[ToolkitError], message: str, method: str, cnn: Path,
    images: Items, tmp_path: Path, quick: None,
) -> None:  # fmt: skip
    given = calibration(images)
    with pytest.raises(error, match=message) as caught:
        quantize(cnn, tmp_path / "out.onnx", method=method, calibration=given)  # type: ignore[arg-type]  # a name
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cnn.onnx"]


def test_static_without_samples_asks_for_them(cnn: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"calibration needs samples to take ranges from.*--calibration DATA"):
        quantize(cnn, tmp_path / "out.onnx", method="static")


def test_a_single_sample_is_enough(cnn: Path, images: Items, tmp_path: Path) -> None:
    one = [{"x": images[0]["x"][:1]}]
    assert quantize(cnn, tmp_path / "out.onnx", method="static", calibration=one).calibration_samples == 1


def test_a_constant_input(tmp_path: Path, write: Callable[..., Path]) -> None:
    items = [{"x": np.full((8, 16), 0.3, np.float32)}]
    report = quantize(write(MATMUL, {"w": (16, 4)}), tmp_path / "out.onnx", method="static", calibration=items)
    assert report.outputs[0].snr_db > 30


def test_all_zero_calibration_leaves_nothing_to_do_and_says_why(tmp_path: Path, write: Callable[..., Path]) -> None:
    source = write(MATMUL, {"w": (16, 4)})
    with pytest.raises(UsageError, match="no node of this model can be narrowed.*all zero in calibration"):
        quantize(source, tmp_path / "out.onnx", method="static", calibration=[{"x": np.zeros((8, 16), np.float32)}])


@pytest.mark.parametrize("method", ["static", "dynamic", "weight-only"])
def test_a_model_without_a_node_to_narrow(method: str, tmp_path: Path, write: Callable[..., Path]) -> None:
    source = write(HEAD + "g (float[N,16] x) => (float[N,16] y) { y = Relu(x) }", {})
    with pytest.raises(UsageError, match="no node of this model can be narrowed"):
        quantize(source, tmp_path / "out.onnx", method=method, calibration=vectors())  # type: ignore[arg-type]  # a name
    assert not (tmp_path / "out.onnx").exists()


def test_a_quantized_model_is_refused(cnn: Path, images: Items, tmp_path: Path) -> None:
    quantize(cnn, tmp_path / "a.onnx", method="static", calibration=images)
    with pytest.raises(UsageError, match="quantized already; got int8; quantize the float model"):
        quantize(tmp_path / "a.onnx", tmp_path / "b.onnx", method="float16")


def test_embeddings_and_recurrent_layers_stay_float_and_are_named(tmp_path: Path, write: Callable[..., Path]) -> None:
    source = write(
        HEAD + """g (int64[N,T] ids) => (float[N,T,1,8] y) {
          e = Gather(table, ids)
          t = Transpose<perm=[1,0,2]>(e)
          o = GRU<hidden_size=32>(t, w, r)
          z = Transpose<perm=[2,0,1,3]>(o)
          y = MatMul(z, v)
        }""",
        {"table": (64, 16), "w": (1, 96, 16), "r": (1, 96, 32), "v": (32, 8)},
    )  # fmt: skip
    items = [{"ids": np.random.default_rng(0).integers(0, 64, (4, 6))}]
    report = quantize(source, tmp_path / "out.onnx", method="static", calibration=items)
    assert report.quantized == {"MatMul": 1}
    reason = "the placement has no rule for its operator"
    assert {(item.operator, item.reason) for item in report.left} == {("Gather", reason), ("GRU", reason)}


@pytest.mark.parametrize("method", ["static", "dynamic", "weight-only", "float16"])
def test_control_flow_is_kept_and_what_is_in_it_stays_float(
    method: str, tmp_path: Path, write: Callable[..., Path]
) -> None:
    source = write(
        HEAD + """g (float[N,16] x, bool c) => (float[N,16] y) {
          h = MatMul(x, w)
          z = If(c) <
            then_branch = t () => (float[N,16] a) { a = MatMul(h, v) },
            else_branch = e () => (float[N,16] b) { b = Relu(h) }>
          y = MatMul(z, v)
        }""",
        {"w": (16, 16), "v": (16, 16)},
    )  # fmt: skip
    values = np.random.default_rng(0).standard_normal((3, 8, 16)).astype(np.float32)
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=values.reshape(-1, 16), c=np.array(True))
    report = quantize(source, tmp_path / "out.onnx", method=method, calibration=samples)  # type: ignore[arg-type]  # a name
    assert report.quantized["MatMul"] >= 2
    wanted, got = (registry.provider("cpu").open(path) for path in (source, tmp_path / "out.onnx"))
    for branch in (True, False):
        feeds = {"x": values[0], "c": np.array(branch)}
        assert np.abs(wanted(feeds)["y"] - got(feeds)["y"]).max() < 0.2


def test_precisions_that_the_target_does_not_allow(cnn: Path, images: Items, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="cpu-fp32: this target does not allow int8 files"):
        quantize(cnn, tmp_path / "out.onnx", method="static", calibration=images, target="cpu-fp32")
    with pytest.raises(NotApplicable, match="cpu runs no bfloat16 files"):
        quantize(cnn, tmp_path / "out.onnx", method="bfloat16")
    with pytest.raises(NotApplicable, match="torch takes no quantized files"):
        quantize(cnn, tmp_path / "out.onnx", method="float16", target="torch")


def test_auto_measures_and_so_needs_the_target(cnn: Path, tmp_path: Path) -> None:
    if registry.provider("tensorrt").probe().__class__.__name__ == "Available":
        pytest.skip("TensorRT is here")
    with pytest.raises(ProviderUnavailable):
        quantize(cnn, tmp_path / "out.onnx", target="tensorrt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "statc"}, "--method: unknown choice; got statc.*'static'"),
        ({"observer": "max"}, "--observer: unknown choice"),
        ({"bits": 3}, "--bits: unknown choice"),
        ({"max_drop": -1.0}, "--max-drop"),
        ({"placement": "best", "method": "static"}, "no such placement"),
        ({"state": {"h": "hn"}, "method": "static"}, "state pair"),
    ],
)
def test_slips_in_options(options: dict[str, object], message: str, cnn: Path, images: Items, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        quantize(cnn, tmp_path / "out.onnx", calibration=images, **options)  # type: ignore[arg-type]  # slips on purpose


# accuracy and choosing


def test_garbage_is_refused_even_without_labels(write: Callable[..., Path], tmp_path: Path) -> None:
    # The difference of two large products is all that is left: eight bits cannot hold it.
    large = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32) * 100
    source = write(
        HEAD + "g (float[N,16] x) => (float[N,16] y) { a = MatMul(x, p)\n b = MatMul(x, q)\n y = Sub(a, b) }",
        {"p": large, "q": large + np.float32(1e-3) * np.eye(16, dtype=np.float32)},
    )
    with pytest.raises(ParityError, match=r"static int8, unsigned is not usable.*output 'y': "):
        quantize(source, tmp_path / "o.onnx", method="static", calibration=vectors())
    assert not (tmp_path / "o.onnx").exists()


def test_auto_tries_everything_and_keeps_only_what_is_faster(
    cnn: Path, images: Items, tmp_path: Path, quick: None
) -> None:
    report = quantize(cnn, tmp_path / "o.onnx", calibration=images)
    assert {trial.name for trial in report.candidates if "corrected" not in trial.name} == {
        "static int8, unsigned, minmax", "static int8, unsigned, mse", "dynamic int8", "weight-only int8",
    }  # fmt: skip
    raced = [trial for trial in report.candidates if trial.speed is not None]
    assert len([trial for trial in raced if trial.name.startswith("static")]) <= 1
    assert all(trial.speed is not None or trial.refusal or "static" in trial.name for trial in report.candidates)
    if report.speed is None:
        assert report.method == "float32"
        assert "nothing beat the float model on cpu" in report.notes[0]
        assert (facts(tmp_path / "o.onnx").quantized, report.quantized) == (False, {})
    else:
        assert report.speed.verdict == "faster"


def test_auto_without_samples_says_what_it_did_not_try(cnn: Path, tmp_path: Path, quick: None) -> None:
    report = quantize(cnn, tmp_path / "o.onnx")
    assert any("static int8 was not tried" in note for note in report.notes)


def test_a_target_of_ones_own(cnn: Path, images: Items, tmp_path: Path) -> None:
    own = Target(name="mine", provider="cpu", threads=1, precisions=("int8",))
    assert quantize(cnn, tmp_path / "o.onnx", method="static", calibration=images, target=own).target == "mine"
