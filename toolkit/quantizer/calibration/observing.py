"""The model under calibration as an engine: it runs like any other, and histograms see what passes through it."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
import onnx_ir as ir

from toolkit.errors import InvalidData
from toolkit.graph.facts import input_specs
from toolkit.graph.shapes import Shapes
from toolkit.graph.walk import clone_with_values
from toolkit.providers import registry
from toolkit.providers.session import Execution, Session
from toolkit.quantizer.calibration.histogram import StreamingHistogram
from toolkit.tensors import Array, Feeds


@final
class ObservingEngine:
    """Runs a model once per group of tensors, with those tensors as further outputs.

    Args:
        model: the model.
        groups: names of the tensors to observe, so grouped that the outputs of one run fit into memory.
        histograms: by tensor.
        state: inputs that hold no samples.
        data: for messages.
    """

    def __init__(
        self, model: ir.Model, groups: Sequence[Collection[str]], histograms: Mapping[str, StreamingHistogram],
        shapes: Shapes, state: Collection[str], data: str,
    ) -> None:  # fmt: skip
        self._groups, self._histograms, self._state, self._data = groups, histograms, state, data
        self._sessions = [observed_session(model, group, shapes) for group in groups]
        self.inputs = input_specs(model)
        names = {value.name for value in model.graph.outputs}
        self.outputs = tuple(spec for spec in self._sessions[0].outputs if spec.name in names)
        self._done = 0

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run every group on ``feeds``, add what they show to the histograms, and return the model's own outputs."""
        samples = self._samples(feeds)
        self._refuse_nan(feeds)
        outputs: dict[str, Array] = {}
        for session, group in zip(self._sessions, self._groups, strict=True):
            outputs = session(feeds)
            for name in group:
                self._histograms[name].update(feeds[name] if name in feeds else outputs[name], samples)
        self._done += samples
        return {spec.name: outputs[spec.name] for spec in self.outputs}

    def _samples(self, feeds: Feeds) -> int:
        """How many samples these feeds are: the leading size of the first input that holds samples."""
        sizes = [len(array) for name, array in feeds.items() if array.ndim and name not in self._state]
        return sizes[0] if sizes else 1

    def _refuse_nan(self, feeds: Feeds) -> None:
        for name, array in feeds.items():
            if array.dtype.kind == "f" and np.isnan(array).any():
                row = int(np.argwhere(np.isnan(array))[0][0]) if array.ndim else 0
                raise InvalidData(
                    "NaN in the calibration data", where=f"{self._data}: '{name}'", got=f"in sample {self._done + row}",
                    next_step="remove the sample, or repair what made it",
                )  # fmt: skip

    def prove(self, feeds: Feeds) -> Execution:
        return self._sessions[0].prove(feeds)

    def close(self) -> None:
        for session in self._sessions:
            session.close()


def observed_session(model: ir.Model, group: Collection[str], shapes: Shapes) -> Session:
    """``model`` with the tensors of ``group`` as further outputs, open on the cpu provider."""
    copy, twins = clone_with_values(model)
    there = {value.name for value in (*copy.graph.inputs, *copy.graph.outputs)}
    for value, found in shapes.items():
        if value.name in group and value.name not in there and value.graph is model.graph:
            twins[value].type = ir.TensorType(found.dtype or ir.DataType.FLOAT)
            twins[value].shape = found.shape
            copy.graph.outputs.append(twins[value])
    with tempfile.TemporaryDirectory(prefix="toolkit-calibration-") as folder:
        path = Path(folder) / "observed.onnx"
        # Not save_model: its check wants a rank of every output, which inference does not always find.
        ir.save(copy, path, external_data=f"{path.name}.data")
        return registry.provider("cpu").open(path)
