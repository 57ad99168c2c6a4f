"""Manifests of every schema so far are read, and written anew in the newest."""

from __future__ import annotations

import json

import pytest

from toolkit.bundle.manifest import SCHEMA_VERSION, Provenance, decode, encode
from toolkit.errors import InvalidBundle

# Written by the first release, word for word but for the hash.
VERSION_1 = {
    "schema_version": 1,
    "name": "digits",
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 784], "values": None}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 10], "values": None}],
    "variants": [
        {
            "name": "float32-cpu",
            "model": "variants/float32-cpu/fcnn.onnx",
            "precision": "float32",
            "targets": [
                {
                    "name": "cpu", "description": "", "provider": "cpu", "device": "", "precisions": [],
                    "inference_precision": "", "mode": "latency", "threads": 0, "streams": 0, "engine_options": {},
                }
            ],
            "files": {"variants/float32-cpu/fcnn.onnx": {"sha256": "0" * 64, "size_bytes": 12}},
            "parity": {"ulp": 4},
            "accuracy": {},
            "measurements": [
                {"target": "cpu", "provider": "cpu", "p50_ns": 1e4, "p50_ci": None, "samples": 9, "environment": "e"}
            ],
        }
    ],
    "task": "classification",
    "labels": ["0", "1"],
    "preprocessing": {"inputs": [{"input": "x", "steps": [{"step": "scale", "factor": 0.5}]}], "schema_version": 1},
    "state": {},
    "provenance": {"source": "zoo:fcnn_digits", "seed": 3, "who": {"team": "a"}},
    "licence": "Apache-2.0",
}  # fmt: skip


def test_the_first_schema_is_read() -> None:
    manifest = decode(json.dumps(VERSION_1).encode(), "m")
    assert manifest.schema_version == SCHEMA_VERSION
    assert manifest.provenance == Provenance(source="zoo:fcnn_digits", other={"seed": 3, "who": {"team": "a"}})
    assert manifest.variants[0].measurements[0].fingerprint is None
    assert manifest.variants[0].prepared == ()


def test_what_was_read_is_written_in_the_newest_schema() -> None:
    manifest = decode(json.dumps(VERSION_1).encode(), "m")
    assert decode(encode(manifest), "m") == manifest
    assert json.loads(encode(manifest))["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize(
    "change",
    [{"provenance": 3}, {"provenance": {"source": 3}}, {"prepared": []}, {"variants": 1}, {"schema_version": 0}],
)
def test_an_old_manifest_that_does_not_hold_is_one_line(change: dict[str, object]) -> None:
    content = json.dumps({**VERSION_1, **change}).encode()
    if change == {"provenance": {"source": 3}}:
        assert decode(content, "m").provenance.other == {"source": 3}  # schema 1 allowed it
        return
    with pytest.raises(InvalidBundle) as caught:
        decode(content, "m")
    assert "\n" not in str(caught.value)


def test_the_newest_schema_takes_no_unknown_field() -> None:
    manifest = json.loads(encode(decode(json.dumps(VERSION_1).encode(), "m")))
    with pytest.raises(InvalidBundle, match="unknown field"):
        decode(json.dumps({**manifest, "surprise": 1}).encode(), "m")
