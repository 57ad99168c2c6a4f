from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolkit.optimizer.runner as runner
from tests.graph.building import normal, proto, run, types, write
from tests.optimizer.breaking import DropRelus, FreezeBatch
from toolkit.errors import FileProblem, InvalidModel, ParityError, ToolkitError, UsageError
from toolkit.graph import files
from toolkit.graph.facts import facts
from toolkit.graph.files import load_model
from toolkit.optimizer.api import optimize
from toolkit.optimizer.base import Pass

NET = """net (float[batch, 3, height, width] x) => (float[batch, 5] y) {
    i = Identity(x) c = Conv<pads=[1, 1, 1, 1]>(i, w) b = BatchNormalization(c, g, s, m, v) r = Relu(b) d = Dropout(r)
    p = GlobalAveragePool(d) f = Flatten(p) t = Transpose<perm=[1, 0]>(k) y = MatMul(f, t)
}"""
WEIGHTS = {
    "w": normal(4, 3, 3, 3), "g": normal(4), "s": normal(4, seed=1), "m": normal(4, seed=2),
    "v": np.abs(normal(4, seed=3)) + 0.1, "k": normal(5, 4),
}  # fmt: skip


def net(folder: Path, name: str = "net.onnx", **options: Any) -> Path:
    return write(folder / name, NET, weights=WEIGHTS, **options)


def listing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_network_gets_smaller_and_is_proven_equal_at_several_sizes(tmp_path: Path) -> None:
    report = optimize(net(tmp_path), tmp_path / "small.onnx")
    assert (report.nodes_before, report.nodes_after) == (9, 5)
    assert types(load_model(tmp_path / "small.onnx")) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "MatMul"]
    assert report.verification is not None
    assert report.verification.passed
    labels = [case.label for case in report.verification.cases]
    assert {"usual", "smallest", "larger"} <= set(labels)
    assert report.verification.candidate == str(tmp_path / "small.onnx")
    assert {item.name: item.changed for item in report.passes if item.changed} == {
        "RemoveIdentity": 2, "FoldConstants": 1, "FoldBatchNorm": 1, "RemoveDeadCode": 6
    }  # fmt: skip
    x = normal(2, 3, 8, 8)
    wanted, got = run(proto(NET, weights=WEIGHTS), x=x)[0], run(load_model(tmp_path / "small.onnx"), x=x)[0]
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_the_same_input_gives_the_same_bytes_and_a_second_run_nothing_new(tmp_path: Path) -> None:
    source = net(tmp_path)
    first = optimize(source, tmp_path / "a.onnx")
    second = optimize(source, tmp_path / "b.onnx")
    assert first.sha256 == second.sha256
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    again = optimize(tmp_path / "a.onnx", tmp_path / "c.onnx")
    assert again.sha256 == first.sha256
    assert sum(item.changed for item in again.passes) == 0


def use(monkeypatch: pytest.MonkeyPatch, extra: Sequence[Pass]) -> None:
    """Slip ``extra`` in among the usual passes."""
    usual = runner.simplifications()
    monkeypatch.setattr(runner, "simplifications", lambda growth_bytes=0: (*usual[:5], *extra, *usual[5:]))


def test_a_bad_pass_is_found_among_the_others_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, [DropRelus()])
    source = net(tmp_path)
    with pytest.raises(ParityError) as caught:
        optimize(source, tmp_path / "small.onnx")
    assert caught.value.exit_code == 3
    assert "DropRelus changed what the model computes" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == ["net.onnx"]
    assert optimize(source, tmp_path / "small.onnx", skip=("DropRelus",)).nodes_after == 5


def test_a_frozen_dim_is_found_at_another_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, [FreezeBatch()])
    text = "g (float[batch, 3, 4] x) => (float[a, b] y) { y = Reshape(x, shape) }"
    source = write(tmp_path / "a.onnx", text, weights={"shape": np.array([-1, 12])})
    with pytest.raises(ParityError, match="FreezeBatch"):
        optimize(source, tmp_path / "b.onnx")
    assert listing(tmp_path) == ["a.onnx"]


def test_a_model_that_draws_random_numbers_cannot_be_checked(tmp_path: Path) -> None:
    text = "g (float[n, 4] x) => (float[n, 4] y) { i = Identity(x) r = RandomNormalLike(i) y = Add(i, r) }"
    source = write(tmp_path / "a.onnx", text)
    with pytest.raises(UsageError, match="answers differently each time"):
        optimize(source, tmp_path / "b.onnx")
    assert optimize(source, tmp_path / "b.onnx", check=False).nodes_after == 2


def test_what_was_assumed_about_an_old_file_is_in_the_notes(tmp_path: Path) -> None:
    text = "g (float[n, 4] x) => (float[n, 4] y) { d = Dropout<is_test=0>(x) y = Relu(d) }"
    source = write(tmp_path / "a.onnx", text, opset=6, ir_version=3)
    report = optimize(source, tmp_path / "b.onnx", check=False)
    assert report.notes[0] == "opset 6 to 17: rewrote 1 Dropout"
    assert "inference is assumed" in report.notes[1]


def test_without_a_check_nothing_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, [DropRelus()])
    report = optimize(net(tmp_path), tmp_path / "b.onnx", check=False)
    assert report.verification is None
    assert "Relu" not in report.operators_after


def test_dims_are_fixed_and_renamed_and_outputs_follow(tmp_path: Path) -> None:
    optimize(net(tmp_path), tmp_path / "b.onnx", dims={"batch": 2}, rename={"height": "rows"})
    found = facts(tmp_path / "b.onnx")
    assert found.inputs[0].shape == (2, 3, "rows", "width")
    assert found.outputs[0].shape == (2, 5)
    with pytest.raises(UsageError, match="no such dim"):
        optimize(net(tmp_path), tmp_path / "c.onnx", dims={"depth": 2})
    assert "c.onnx" not in listing(tmp_path)


def test_an_opset_no_engine_runs_is_upgraded_and_checked_by_the_reference(tmp_path: Path) -> None:
    text = """old (float[2, 6] x) => (float[2, 5] y) {
        t = Gemm<broadcast=1, transB=1>(x, w, k) u = Unsqueeze<axes=[2]>(t)
        z = BatchNormalization<is_test=1>(u, g, s, m, v) y = Squeeze<axes=[2]>(z)
    }"""
    weights = {
        "w": normal(5, 6),
        "k": normal(5),
        **{name: normal(5, seed=9) for name in "gsm"},
        "v": np.ones(5, np.float32),
    }
    source = write(tmp_path / "old.onnx", text, opset=6, ir_version=3, weights=weights)
    report = optimize(source, tmp_path / "new.onnx")
    assert (report.opset_before, report.opset_after, report.nodes_after) == (6, 17, 1)
    assert report.verification is not None
    assert report.verification.reference_target == "reference implementation"
    assert optimize(source, tmp_path / "newer.onnx", opset=21).opset_after == 21


def test_an_older_opset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="newer"):
        optimize(net(tmp_path), tmp_path / "b.onnx", opset=13)
    assert listing(tmp_path) == ["net.onnx"]


def test_a_model_that_runs_at_few_sizes_is_checked_at_those(tmp_path: Path) -> None:
    text = """window (float[batch, samples] x) => (float[batch, 2] y) {
        i = Identity(x) r = Reshape(i, shape) y = MatMul(r, w)
    }"""
    source = write(tmp_path / "a.onnx", text, weights={"shape": np.array([-1, 512]), "w": normal(512, 2)})
    text_fixed = facts(source)
    assert text_fixed.dynamic_dims == ("batch", "samples")
    report = optimize(source, tmp_path / "b.onnx", check_dims={"samples": 512})
    assert report.verification is not None
    assert all(case.dims["samples"] == 512 for case in report.verification.cases)


def test_sizes_are_searched_for_when_the_usual_ones_do_not_run(tmp_path: Path) -> None:
    text = "window (float[batch, n] x) => (float[batch, 2] y) { i = Identity(x) j = Relu(i) y = MatMul(j, w) }"
    source = write(tmp_path / "a.onnx", text, weights={"w": normal(512, 2)})
    report = optimize(source, tmp_path / "b.onnx")
    assert report.verification is not None
    assert {case.dims["n"] for case in report.verification.cases} == {512}
    assert len({case.dims["batch"] for case in report.verification.cases}) > 1
    odd = write(tmp_path / "odd.onnx", text, weights={"w": normal(313, 2)})
    with pytest.raises(UsageError, match="none of the shapes"):
        optimize(odd, tmp_path / "c.onnx")
    assert optimize(odd, tmp_path / "c.onnx", check_dims={"n": 313}).nodes_after == 2


def test_data_is_compared_on_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=normal(4, 3, 8, 8))
    report = optimize(net(tmp_path), tmp_path / "b.onnx", data=tmp_path / "data.npz")
    assert report.verification is not None
    assert any(case.label.startswith("data") for case in report.verification.cases)


QUANTIZED = """q (float[n, 8] x) => (float[n, 6] y) {
    a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) k = DequantizeLinear(w, t)
    p = MatMul(b, k) c = DequantizeLinear(bias, u) o = Add(p, c)
    e = QuantizeLinear(o, s, z) f = DequantizeLinear(e, s, z) i = Identity(f) y = Relu(i)
}"""


def test_a_quantized_model_keeps_every_quantize_and_dequantize_node(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weights = {
        "s": np.float32(0.05), "z": np.uint8(128), "t": np.float32(0.02), "u": np.float32(0.001),
        "w": generator.integers(-127, 127, (8, 6)).astype(np.int8), "bias": np.arange(6, dtype=np.int32),
    }  # fmt: skip
    source = write(tmp_path / "q.onnx", QUANTIZED, weights=weights)
    report = optimize(source, tmp_path / "b.onnx")
    before, after = report.operators_before, report.operators_after
    for name in ("QuantizeLinear", "DequantizeLinear", "MatMul"):
        assert before[name] == after[name]
    assert "Identity" not in after
    assert facts(tmp_path / "b.onnx").precision == "int8"
    kept = load_model(tmp_path / "b.onnx").graph.initializers["w"].const_value
    np.testing.assert_array_equal(kept.numpy(), weights["w"])


def test_large_models_keep_their_weights_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SINGLE_FILE_BYTES", 1000)
    text = "g (float[n, 40] x) => (float[n, 30] y) { i = Identity(x) y = MatMul(i, w) }"
    (tmp_path / "out").mkdir()
    source = write(tmp_path / "a.onnx", text, weights={"w": normal(40, 30)})
    optimize(source, tmp_path / "out" / "b.onnx")
    assert listing(tmp_path / "out") == ["b.onnx", "b.onnx.data"]


def test_metadata_and_names_survive(tmp_path: Path) -> None:
    message = proto(NET, weights=WEIGHTS)
    message.metadata_props.add(key="toolkit.labels", value='["a"]')
    message.producer_name = "someone"
    source = tmp_path / "a.onnx"
    source.write_bytes(message.SerializeToString())
    optimize(source, tmp_path / "b.onnx")
    found = facts(tmp_path / "b.onnx")
    assert found.metadata == {"toolkit.labels": '["a"]'}
    assert [str(spec) for spec in found.inputs] == ["x:float32[batch,3,height,width]"]
    assert load_model(tmp_path / "b.onnx").producer_name == "someone"


def test_bad_inputs_and_outputs(tmp_path: Path) -> None:
    source = net(tmp_path)
    (tmp_path / "text.onnx").write_text("no model\n")
    cases: list[tuple[Path, Path, type[ToolkitError]]] = [
        (tmp_path / "none.onnx", tmp_path / "b.onnx", FileProblem),
        (tmp_path, tmp_path / "b.onnx", FileProblem),
        (tmp_path / "text.onnx", tmp_path / "b.onnx", InvalidModel),
        (source, tmp_path, FileProblem),
        (source, tmp_path / "none" / "b.onnx", FileProblem),
    ]
    for given, output, error in cases:
        with pytest.raises(error) as caught:
            optimize(given, output)
        assert "\n" not in str(caught.value)
    assert listing(tmp_path) == ["net.onnx", "text.onnx"]


def test_the_output_may_be_the_input(tmp_path: Path) -> None:
    source = net(tmp_path)
    assert optimize(source, source).nodes_after == 5
    assert len(load_model(source).graph) == 5
    assert listing(tmp_path) == ["net.onnx"]
