"""ONNX Runtime's CPU execution provider."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

import msgspec

import toolkit.machine as machine
from toolkit.errors import MissingDependency, ProviderUnavailable
from toolkit.providers.base import Availability, Available, Placement, Prepared, Provider, Unavailable, first_line
from toolkit.providers.onnxruntime_ import (
    OUTWARD_KEYS,
    SESSION_ATTRIBUTES,
    SESSION_KEYS,
    SESSION_VALUES,
    Chain,
    import_onnxruntime,
)
from toolkit.providers.onnxruntime_engine import (
    CPU,
    OnnxRuntimeEngine,
    as_it_is,
    place,
    prepare,
    prepared_facts,
    prepared_key,
)
from toolkit.targets import Target

if TYPE_CHECKING:
    from toolkit.providers.onnxruntime_instruments import OnnxRuntimeInstruments

CHAIN: Chain = ((CPU, {}),)


@final
class CpuProvider(Provider):
    """ONNX Runtime on the CPU."""

    name = "cpu"
    rank = 4
    precisions = ("float64", "float32", "float16", "int8", "int4")
    extra = "cpu"
    placement_rules = "cpu.toml"
    option_values = SESSION_VALUES
    outward_options = OUTWARD_KEYS
    native_forms = False

    def probe(self, device: str = "") -> Availability:
        if device not in ("", "CPU", "cpu", "0"):
            return Unavailable(f"the CPU has no device {device!r}", "leave the device out: cpu")
        try:
            ort = import_onnxruntime()
        except (MissingDependency, ProviderUnavailable) as exc:
            return Unavailable(exc.what, exc.next_step or "")
        except OSError as exc:
            return Unavailable(
                f"onnxruntime does not load: {first_line(exc)}", "pip install --force-reinstall onnxruntime"
            )
        return Available(ort.__version__, ("CPU",))

    def known_options(self) -> tuple[str, ...]:
        return SESSION_KEYS + SESSION_ATTRIBUTES

    def open_engine(self, model: Path, target: Target) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(model, target, CHAIN)

    def open_prepared(self, prepared: Path, target: Target) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(prepared, as_it_is(target), CHAIN)

    def instruments(self, model: Path, target: Target, folder: Path) -> OnnxRuntimeInstruments:
        from toolkit.providers.onnxruntime_instruments import OnnxRuntimeInstruments  # profiling alone needs it

        return OnnxRuntimeInstruments(model, target, folder, CHAIN)

    def instances(self, target: Target, count: int) -> tuple[Target, int]:
        """Sessions with a share of the threads; one of one thread runs in its callers' threads, so it is enough."""
        threads = max(1, (target.threads or machine.usable_cores()) // count)
        return msgspec.structs.replace(target, threads=threads), 1 if threads == 1 else count

    def place(self, model: Path, target: Target) -> Placement:
        return place(model, target, CHAIN)

    def prepare(self, model: Path, target: Target, folder: Path) -> Prepared:
        return prepare(model, target, folder, CHAIN, self.prepared_key(model, target))

    def prepared_facts(self, target: Target) -> dict[str, str]:
        return prepared_facts()

    def prepared_key(self, model: Path, target: Target) -> str:
        return prepared_key(model, target)
