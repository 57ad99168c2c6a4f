from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from toolkit.exporter.adapter import Adapter
from toolkit.exporter.parity import MULTIPLE, Rule, compare
from toolkit.exporter.reference import Reference, output_specs
from toolkit.exporter.rounding import Jitter
from toolkit.exporter.widen import widened
from toolkit.tensors import Array, example_inputs, parse_spec

GENERATOR = np.random.default_rng(0)
EXACT = GENERATOR.standard_normal((20, 8))
NOISE = 1e-5 * GENERATOR.standard_normal(EXACT.shape)
OWN = (EXACT + NOISE).astype(np.float32)


def moved(by: Array | float) -> Array:
    return (EXACT + by).astype(np.float32)


def test_an_error_like_torchs_own_passes_and_a_multiple_of_it_does_not() -> None:
    passes = compare("y", EXACT, OWN, moved(2 * NOISE[::-1]))
    assert not passes.failure and 0.0 < passes.ratio < 1.0
    fails = compare("y", EXACT, OWN, moved(3 * MULTIPLE * NOISE))
    assert fails.ratio > 1.0 and "torch's own" in fails.failure


def test_four_ulp_pass_where_torch_is_exact() -> None:
    exact = EXACT.astype(np.float32).astype(np.float64)
    assert not compare("y", exact, exact.astype(np.float32), (exact * (1 + 3 * 2.0**-23)).astype(np.float32)).failure
    assert compare("y", exact, exact.astype(np.float32), (exact * (1 + 20 * 2.0**-23)).astype(np.float32)).failure


def test_a_large_value_does_not_hide_errors_in_other_places() -> None:
    exact = EXACT.copy()
    exact[:, 0] *= 1e6
    own = (exact * (1 + 1e-7)).astype(np.float32)
    got = own.copy()
    got[:, 3] += 1e-3
    failure = compare("y", exact, own, got).failure
    assert "at index 3 of axis 1" in failure
    assert 0.01 * 4 * 2.0**-23 * np.abs(exact).max() * 1e3 > 1e-3  # alone, the largest error would not tell


def test_a_small_error_everywhere_fails_on_average() -> None:
    own = moved(np.where(np.arange(8) == 0, 1e-4, 0.0) * (np.arange(20)[:, None] == 0))
    assert "mean error" in compare("y", EXACT, own, moved(5e-5)).failure


def test_nonfinite_values_follow_torch() -> None:
    exact, own = EXACT.copy(), OWN.copy()
    own[0, 0] = np.inf  # float32 overflows where float64 does not
    assert not compare("y", exact, own, own.copy()).failure
    wrong = own.copy()
    wrong[1, 1] = np.nan
    assert compare("y", exact, own, wrong).failure == "NaN or infinity differs in 1 of 160 places"


def test_shapes_and_types_have_to_be_the_same() -> None:
    assert compare("y", EXACT, OWN, OWN[:3]).failure == "shape [3, 8] instead of [20, 8]"
    assert compare("y", EXACT, OWN, OWN.astype(np.int64)).failure == "type int64 instead of float32"


def test_integers_are_exact_but_where_torch_itself_decides_differently() -> None:
    exact, own = np.array([1, 2, 3]), np.array([1, 2, 0])
    assert not compare("i", exact, own, np.array([1, 2, 3])).failure
    assert compare("i", exact, own, np.array([1, 0, 0])).failure == "1 of 3 elements differ"


def test_a_usual_answer_gives_the_magnitude_where_a_case_has_none() -> None:
    nothing = np.zeros((20, 8))
    got = np.full(nothing.shape, 1e-8, np.float32)
    assert compare("y", nothing, nothing.astype(np.float32), got).failure
    assert not compare("y", nothing, nothing.astype(np.float32), got, Rule(usual=EXACT)).failure


def test_jittered_runs_never_excuse_a_large_error() -> None:
    wild = moved(0.5 * GENERATOR.standard_normal(EXACT.shape))
    assert not compare("y", EXACT, wild, moved(0.01)).failure
    assert compare("y", EXACT, wild, moved(0.01), Rule(jittered=True)).failure


class Mean(nn.Module):
    """A reduction over many equal values, which engines round differently."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x.float()).mean(-1)


def test_jitter_moves_reductions_by_what_rounding_can_do() -> None:
    x = torch.rand(4, 10_000)
    with Jitter(0):
        jittered = Mean()(x)
    error = (jittered.double() - Mean()(x.double())).abs().max().item()
    assert 2.0**-24 < error < 1e-4
    with Jitter(0):
        assert torch.equal(Mean()(x), jittered)
        assert torch.equal(x + 1, x.clone().add(1))  # additions and copies stay what they are


def test_widened_modules_run_in_float64_and_come_back_bit_by_bit() -> None:
    module = nn.Sequential(nn.Linear(4, 4).half(), nn.BatchNorm1d(4)).eval()
    module.scale = torch.tensor([2.0])  # a plain attribute
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with widened(module):
        assert all(tensor.dtype != torch.float16 for tensor in module.state_dict().values())
        assert module.scale.dtype == torch.zeros(1).dtype == torch.zeros(1, dtype=torch.float32).dtype == torch.float64
        assert torch.ones(1).float().dtype == torch.float64
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert torch.zeros(1).dtype == torch.float32


def test_the_reference_is_float64_and_says_when_it_cannot_be() -> None:
    specs = (parse_spec("x:float32[batch,4]"),)
    module = nn.Linear(4, 2)
    reference = Reference(Adapter(module, specs), specs)
    feeds = example_inputs(specs, {"batch": 3})
    (exact,) = reference.exact([feeds])
    assert exact["output"].dtype == np.float64 and reference.own(feeds)["output"].dtype == np.float32

    class OnlyFloat32(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.dtype == torch.float64:
                raise RuntimeError("this kernel wants float32")
            return x

    reference = Reference(Adapter(OnlyFloat32(), specs), specs)
    assert reference.exact([feeds])[0]["output"].dtype == np.float32
    assert reference.precision == "float32" and "does not run in float64" in reference.note


def test_output_specs_follow_dims() -> None:
    answers = [
        ({"batch": 3, "seq": 13}, {"y": np.zeros((3, 13, 4)), "n": np.zeros((26,))}),
        ({"batch": 1, "seq": 1}, {"y": np.zeros((1, 1, 4)), "n": np.zeros((2,))}),
    ]
    assert [str(spec) for spec in output_specs(answers)] == ["y:float64[batch,seq,4]", "n:float64[n_dim0]"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_in_its_own_units(dtype: torch.dtype) -> None:
    from toolkit.providers.torch_ import to_array

    own = to_array(torch.tensor(EXACT).to(dtype))
    assert not compare("y", EXACT, own, own).failure
    assert not compare("y", EXACT, own, own.astype(np.float32), Rule(dtype=own.dtype.name)).failure
    assert compare("y", EXACT, own, (own.astype(np.float32) * 1.2), Rule(dtype=own.dtype.name)).failure
