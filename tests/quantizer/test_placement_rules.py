from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import InvalidTarget
from toolkit.providers import registry
from toolkit.providers.placement import placement_rules, shipped_rules


@pytest.mark.parametrize("provider", sorted(shipped_rules()))
def test_each_table_belongs_to_the_provider_that_names_it(provider: str) -> None:
    assert registry.provider(provider).placement_rules == f"{provider}.toml"


@pytest.mark.parametrize("provider", sorted(shipped_rules()))
def test_each_rule_has_a_source_and_names_operators(provider: str) -> None:
    for variant in shipped_rules()[provider].variants:
        assert variant.source
        for rule in variant.rules:
            assert rule.source
            assert rule.operators
            assert rule.weight not in rule.activations


def test_gpus_get_signed_symmetric_activations_and_the_cpu_unsigned_ones() -> None:
    tables = shipped_rules()
    for provider in ("cuda", "tensorrt"):
        assert all(item.activations.symmetric for item in tables[provider].variants)
    assert tables["cpu"].variants[0].activations.type == "uint8"


def test_a_variant_that_is_like_another_has_its_rules() -> None:
    plain, derived = (placement_rules("cpu.toml").variant(name) for name in ("unsigned", "fused"))
    assert derived.rules == plain.rules and derived.keep_whole == plain.keep_whole
    assert (plain.fused, derived.fused) == (False, True)


def test_a_variant_is_found_by_name() -> None:
    assert placement_rules("openvino.toml").variant("signed").activations.type == "int8"
    with pytest.raises(
        InvalidTarget, match=r"openvino: no such placement; got best; expected one of: unsigned, signed"
    ):
        placement_rules("openvino.toml").variant("best")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("weight = 1", "wieght = 1"), "unknown field"),
        (('type = "uint8"', 'type = "uint9"'), "uint9"),
        (("schema_version = 1", "schema_version = 7"), "7"),
        (("[dynamic]", "[dynamic"), "not a TOML file"),
        (('like = "unsigned"', 'like = "unsinged"'), "unknown field `like`"),
    ],
)
def test_a_slip_in_a_table_is_one_line(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    source = Path(registry.__file__).parent / "cpu.toml"
    path = tmp_path / "mine.toml"
    path.write_text(source.read_text().replace(*change, 1))
    with pytest.raises(InvalidTarget, match=message) as caught:
        placement_rules(str(path))
    assert "\n" not in str(caught.value)
