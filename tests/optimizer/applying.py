"""Applying one pass in a test: how much it changed, a valid model, the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from tests.graph.building import check, run
from toolkit.optimizer.base import Pass, PassReport


def apply(
    item: Pass, model: ir.Model, *, changed: int, tolerance: float = 0.0, **feeds: Any
) -> tuple[ir.Model, PassReport]:
    """Run ``item`` on a copy; ``changed`` is what it has to report, ``tolerance`` how far outputs may move.

    Without ``feeds`` no numbers are compared.
    """
    result, report = item(model.clone())
    assert report.changed == changed, report
    assert len(report.details) == min(changed, 20)
    check(result)
    for value in (*result.graph.inputs, *result.graph.outputs):
        assert value.name
    assert [v.name for v in result.graph.outputs] == [v.name for v in model.graph.outputs]
    if feeds:
        for wanted, got in zip(run(model, **feeds), run(result, **feeds), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
    again, repeated = item(result.clone())
    assert repeated.changed == 0, "a pass that ran has nothing left to do"
    assert ir.serde.serialize_model(again) == ir.serde.serialize_model(result)
    return result, report
