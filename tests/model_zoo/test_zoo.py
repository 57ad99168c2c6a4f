"""The zoo: listed without torch, built the same each time, masks that mean what the library's own mean."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model_zoo.catalogue import REAL_SIZE, SMALL
from model_zoo.entry import ZooEntry
from model_zoo.registry import entries, entry
from toolkit.errors import UsageError
from toolkit.preprocess import Preprocessing
from toolkit.tensors import complete_dims, example_inputs

torch = pytest.importorskip("torch", reason="torch is not installed")
BUILT = [*SMALL, entry("resnet18"), entry("mobilenet_v2")]


def feeds_of(item: ZooEntry, **dims: int) -> dict[str, Any]:
    sizes = {name: size for name, size in dims.items() if name in complete_dims(item.inputs)}
    return {name: torch.from_numpy(values) for name, values in example_inputs(item.inputs, sizes).items()}


def test_listing_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from model_zoo.registry import entries; "
        "print(len(entries()), {'torch', 'transformers', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(entries())} set()\n"


def test_names_are_distinct_and_found_however_they_are_written() -> None:
    assert len(entries()) == len(SMALL) + len(REAL_SIZE)
    assert entry("GPT2-Small").name == "gpt2_small"
    with pytest.raises(UsageError, match=r"the zoo has no such model; got 'resnet5'; expected 'resnet50' \(did you"):
        entry("resnet5")


@pytest.mark.parametrize("item", entries().values(), ids=lambda item: item.name)
def test_entries_are_whole(item: ZooEntry) -> None:
    assert item.family in ("FCNN", "CNN", "RNN", "Transformer")
    assert item.licence and item.task and item.dataset and item.description
    for spec in item.inputs:
        assert spec.shape is not None and spec.shape[0] == "batch"
        assert spec.dtype.startswith("float") or spec.values is not None
    if item.preprocessing is not None:
        assert Preprocessing.from_json(item.preprocessing.to_json()) == item.preprocessing
        assert {steps.input for steps in item.preprocessing.inputs} <= {spec.name for spec in item.inputs}


@pytest.mark.parametrize("item", BUILT, ids=lambda item: item.name)
def test_a_model_is_built_as_it_is_described(item: ZooEntry) -> None:
    if item in REAL_SIZE:
        pytest.importorskip("transformers", reason="transformers is not installed")
    state = torch.random.get_rng_state()
    model = item.build()
    assert torch.equal(torch.random.get_rng_state(), state), "building leaves torch's generator alone"
    assert not model.training
    assert sum(values.numel() for values in model.parameters()) == item.parameters
    with torch.no_grad():
        outputs = model(**feeds_of(item, batch=2, seq=5, time=7))
    assert tuple(outputs.keys()) == item.outputs
    assert len(outputs["logits"]) == 2 and outputs["logits"].isfinite().all()
    if item.labels:
        assert outputs["logits"].shape == (2, len(item.labels))


@pytest.mark.parametrize("item", REAL_SIZE, ids=lambda item: item.name)
def test_a_real_size_model_is_as_large_as_it_is_described(item: ZooEntry) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from model_zoo import architectures

    with torch.device("meta"):  # shapes without memory
        model = getattr(architectures, item.factory)(**item.arguments)
    assert sum(values.numel() for values in model.parameters()) == item.parameters


def test_the_same_weights_each_time() -> None:
    first, second = (entry("transformer_digits").build().state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def padded() -> tuple[Any, Any]:
    ids = torch.randint(1, 50, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    return ids, mask


SMALL_BERT = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
}
SMALL_DISTILBERT = {"n_layers": 2, "dim": 32, "n_heads": 4, "hidden_dim": 64, "vocab_size": 50}
SMALL_GPT2 = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 50}
SMALL_LLAMA = {
    "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "vocab_size": 50,
}  # fmt: skip


@pytest.mark.parametrize(("name", "config"), [("bert", SMALL_BERT), ("distilbert", SMALL_DISTILBERT)])
def test_padding_masks_mean_what_the_librarys_mean(name: str, config: dict[str, int]) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from model_zoo import architectures

    torch.manual_seed(0)
    model = getattr(architectures, name)(**config).eval()
    ids, mask = padded()
    with torch.no_grad():
        found = model(ids, mask)["logits"]
        wanted = type(model).__bases__[0].forward(model, ids, attention_mask=mask).logits
        alone = model(ids[1:, :6], mask[1:, :6])["logits"]
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(found[1:], alone)


@pytest.mark.parametrize(("name", "config"), [("gpt2", SMALL_GPT2), ("llama", SMALL_LLAMA)])
def test_causal_masks_mean_what_the_librarys_mean(name: str, config: dict[str, int]) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from model_zoo import architectures

    torch.manual_seed(0)
    model = getattr(architectures, name)(**config).eval()
    ids = torch.randint(1, 50, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(model(ids)["logits"], type(model).__bases__[0].forward(model, ids).logits)


def test_our_own_masks() -> None:
    text, language = entry("text_classifier").build(), entry("causal_lm").build()
    ids, mask = torch.randint(1, 200, (2, 9)), torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    with torch.no_grad():
        torch.testing.assert_close(text(ids, mask)["logits"][1:], text(ids[1:, :6], mask[1:, :6])["logits"])
        torch.testing.assert_close(language(ids)["logits"][:, :6], language(ids[:, :6])["logits"])


@pytest.mark.parametrize("name", ["text_classifier", "causal_lm", "transformer_digits"])
def test_transformers_export_with_dynamic_sizes_and_without_guards(name: str) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    item = replace(entry(name), arguments={**entry(name).arguments, "depth": 1})
    model = item.build()
    dynamic = {
        spec.name: {axis: torch.export.Dim.AUTO for axis, dim in enumerate(spec.shape or ()) if isinstance(dim, str)}
        for spec in item.inputs
    }
    program = torch.onnx.export(
        model, (), kwargs=feeds_of(item, batch=2, seq=6), dynamic_shapes=dynamic, dynamo=True, verbose=False
    )
    operators = {node.op_type for node in program.model.graph}
    assert "Softmax" in operators
    assert not operators & {"IsNaN", "Where", "GatherND", "ScatterND", "If"}
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    feeds = feeds_of(item, batch=3, seq=11)
    with torch.no_grad():
        wanted = model(**feeds)["logits"].numpy()
    found = session.run(None, {key: values.numpy() for key, values in feeds.items()})[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
