"""No engine: answers zeros of the right shape. For tests of everything that surrounds an engine, on any machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import final

import msgspec
import numpy as np

from toolkit.errors import InvalidModel
from toolkit.providers.base import Availability, Available, Execution, Provider
from toolkit.targets import PRECISIONS, Target
from toolkit.tensors import Array, Feeds, TensorSpec, check_feeds, concrete_shape, numpy_dtype


class NullModel(msgspec.Struct, frozen=True):
    """What a null model file holds, as JSON: its inputs and outputs."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@final
class NullEngine:
    def __init__(self, model: NullModel) -> None:
        self.inputs, self.outputs = model.inputs, model.outputs

    def run(self, feeds: Feeds) -> dict[str, Array]:
        sizes = check_feeds(self.inputs, feeds, "null")
        return {spec.name: np.zeros(concrete_shape(spec, sizes), numpy_dtype(spec.dtype)) for spec in self.outputs}

    def prove(self, feeds: Feeds) -> Execution:
        return Execution("null", "1", "none", 1, {"null": 0}, {}, ("nothing was computed",))

    def close(self) -> None:
        pass


@final
class NullProvider(Provider):
    """Opens a JSON file with ``inputs`` and ``outputs`` instead of an ONNX graph; never chosen by auto."""

    name = "null"
    precisions = PRECISIONS
    extra = "test"

    def probe(self, device: str = "") -> Availability:
        return Available("1", ("none",))

    def known_options(self) -> tuple[str, ...]:
        return ()

    def open_engine(self, model: Path, target: Target) -> NullEngine:
        try:
            return NullEngine(msgspec.json.decode(model.read_bytes(), type=NullModel))
        except (msgspec.DecodeError, json.JSONDecodeError) as exc:
            raise InvalidModel(
                "not a null model", where=model, got=exc, expected="JSON with inputs and outputs"
            ) from exc
