from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from toolkit.errors import InvalidModel, UsageError
from toolkit.exporter.sources.weights import load_weights


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


WEIGHTS = {name: torch.randn_like(tensor.float()).to(tensor.dtype) for name, tensor in net().state_dict().items()}


def saved(tmp_path: Path, content: Any, name: str = "w.pth", **options: Any) -> Path:
    path = tmp_path / name
    torch.save(content, path, **options)
    return path


def loaded(path: Path, key: str | None = None) -> tuple[nn.Module, tuple[str, ...]]:
    module = net()
    notes = load_weights(module, path, key)
    assert torch.equal(module[0].weight, WEIGHTS["0.weight"])
    return module, notes


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_plain_state_dicts_load(tmp_path: Path, old: bool) -> None:
    assert loaded(saved(tmp_path, WEIGHTS, _use_new_zipfile_serialization=not old))[1] == ()


def test_safetensors_load(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(WEIGHTS, path)
    assert loaded(path)[1] == ()
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InvalidModel, match="not a readable .safetensors file"):
        loaded(path)


def test_the_one_place_that_holds_weights_is_found_and_said(tmp_path: Path) -> None:
    path = saved(
        tmp_path, {"epoch": 3, "state_dict": {f"module.{name}": item for name, item in WEIGHTS.items()}}, "w.th"
    )
    assert loaded(path)[1] == (
        "weights taken from the checkpoint's key 'state_dict'",
        "prefix 'module.' taken off the checkpoint's keys",
    )


def test_a_key_picks_among_several(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": WEIGHTS, "ema": {"model": WEIGHTS}}, "w.ckpt")
    with pytest.raises(UsageError, match=r"which part of the checkpoint.*got model, ema\.model; --weights-key"):
        loaded(path)
    assert loaded(path, "ema.model")[1] == ()
    with pytest.raises(UsageError, match=r"no such key in the checkpoint; got emma; expected 'ema'"):
        loaded(path, "emma")
    with pytest.raises(UsageError, match=r"no weights under this key; got ema; expected one of: model"):
        loaded(path, "ema")


def test_counters_of_normalisation_may_be_missing(tmp_path: Path) -> None:
    loaded(saved(tmp_path, {name: item for name, item in WEIGHTS.items() if "num_batches" not in name}))


def test_missing_and_unexpected_keys_are_named_with_a_guess(tmp_path: Path) -> None:
    wrong = {**WEIGHTS, "0.wieght": WEIGHTS["0.weight"]}
    del wrong["0.weight"]
    with pytest.raises(
        UsageError, match=r"missing 0\.weight; unexpected 0\.wieght; expected for 0\.weight: '0\.wieght'"
    ):
        loaded(saved(tmp_path, wrong))


def test_other_shapes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weights of another shape; got 0\.weight \[5, 3\] instead of \[4, 3\]"):
        loaded(saved(tmp_path, {**WEIGHTS, "0.weight": torch.zeros(5, 3)}))


def test_tied_weights_need_one_of_their_names(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight

    module = Tied()
    load_weights(module, saved(tmp_path, {"embed.weight": torch.ones(5, 3)}))
    assert module.head.weight.sum() == 15


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize("content", [Evil(), {"state_dict": WEIGHTS, "args": Evil()}, nn.Linear(3, 4)])
def test_python_objects_are_never_unpickled(content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidModel, match="holds Python objects, which are never unpickled"):
        loaded(saved(tmp_path, content))
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(InvalidModel):
        loaded(tmp_path / "plain.pkl")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("content", [b"not a checkpoint at all", b"\x80\x02"])
def test_damaged_files_are_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(InvalidModel) as caught:
        loaded(path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the checkpoint holds no weights"):
        loaded(saved(tmp_path, {"epoch": 3}))


@pytest.mark.parametrize("name", ["w.npz", "w.pth"])
def test_a_text_file_is_shown_and_not_torchs_number_of_its_first_byte(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("hello there")
    with pytest.raises(InvalidModel, match=r"begins with b'hello there'; expected a \.safetensors file, or what torch"):
        load_weights(net(), path)
