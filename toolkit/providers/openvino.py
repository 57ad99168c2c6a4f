"""Intel's OpenVINO, driven natively."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, final

import msgspec

import toolkit.machine as machine
from toolkit.errors import MissingDependency, ProviderUnavailable
from toolkit.providers.base import Availability, Available, Placement, Prepared, Provider, Unavailable, first_line
from toolkit.providers.fingerprint import cache_key
from toolkit.providers.openvino_ import (
    OPTION_VALUES,
    OPTIONS,
    compile_file,
    core,
    device_of,
    import_blob,
    read_file,
    version,
)
from toolkit.providers.openvino_engine import PASSIVE_LAYERS, OpenvinoEngine
from toolkit.targets import Target

if TYPE_CHECKING:
    from toolkit.providers.openvino_instruments import OpenvinoInstruments


@final
class OpenvinoProvider(Provider):
    """Intel's OpenVINO runtime, on the CPU and the other devices it finds."""

    name = "openvino"
    rank = 3
    # Not float64: it rounds to float32 whatever the file says.
    precisions = ("float32", "float16", "bfloat16", "int8", "int4")
    inference_precisions = ("bfloat16", "float16")
    extra = "openvino"
    placement_rules = "openvino.toml"
    option_values = OPTION_VALUES
    outward_options = ("CACHE_DIR",)

    def probe(self, device: str = "") -> Availability:
        try:
            devices = tuple(core().available_devices)
        except (MissingDependency, ProviderUnavailable) as exc:
            return Unavailable(exc.what, exc.next_step or "")
        except (RuntimeError, OSError) as exc:
            return Unavailable(f"openvino does not load: {first_line(exc)}", "pip install --force-reinstall openvino")
        if device and device.split(".")[0] not in {name.split(".")[0] for name in devices}:
            return Unavailable(
                f"OpenVINO finds no device {device} here, only {', '.join(devices)}", "install its driver"
            )
        return Available(version(), devices)

    def known_options(self) -> tuple[str, ...]:
        return OPTIONS

    def missing(self, target: Target) -> Unavailable | None:
        if target.inference_precision == "bfloat16" and device_of(target) == "CPU" and not machine.has_bfloat16():
            return Unavailable("this CPU has no bfloat16 instructions", "use a target that computes in float32")
        return None

    def open_engine(self, model: Path, target: Target) -> OpenvinoEngine:
        return OpenvinoEngine(compile_file(model, target))

    def open_prepared(self, prepared: Path, target: Target) -> OpenvinoEngine:
        return OpenvinoEngine(import_blob(prepared, target))

    def instruments(self, model: Path, target: Target, folder: Path) -> OpenvinoInstruments:
        from toolkit.providers.openvino_instruments import OpenvinoInstruments  # profiling alone needs it

        return OpenvinoInstruments(model, target)

    def instances(self, target: Target, count: int) -> tuple[Target, int]:
        """One compiled model with a stream for each call; OpenVINO shares the threads among its streams."""
        return msgspec.structs.replace(target, streams=count), 1

    def place(self, model: Path, target: Target) -> Placement:
        """OpenVINO's own answer: what its plugin supports, and the operators its reader cannot translate."""
        graph = read_file(model)
        supported = core().query_model(graph, device_of(target))
        taken: Counter[str] = Counter()
        refused: dict[str, str] = {}
        for op in graph.get_ops():
            if op.get_friendly_name() in supported:
                taken[op.get_type_name()] += 1
            else:
                refused[op.get_type_name()] = "not supported by the plugin"
        return Placement(
            {name: count for name, count in taken.items() if name not in (*PASSIVE_LAYERS, "Constant")}, refused
        )

    def prepare(self, model: Path, target: Target, folder: Path) -> Prepared:
        """Write the compiled model's blob into ``folder``."""
        compiled = compile_file(model, target)
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        output = folder / f"{model.stem}.{hint}.blob"
        output.write_bytes(compiled.export_model().getvalue())
        note = "OpenVINO's compiled blob; valid for this CPU and version only"
        return Prepared(output.name, self.prepared_key(model, target), note)

    def prepared_key(self, model: Path, target: Target) -> str:
        return cache_key(model, target, self.prepared_facts(target))

    def prepared_facts(self, target: Target) -> dict[str, str]:
        """A blob for a GPU holds programs for it, and depends on its driver."""
        device = device_of(target)
        supported = core().get_property(device, "SUPPORTED_PROPERTIES")
        named = {"device": "FULL_DEVICE_NAME", "driver": "GPU_DRIVER_VERSION", "NPU driver": "NPU_DRIVER_VERSION"}
        asked = {label: str(core().get_property(device, name)) for label, name in named.items() if name in supported}
        return {"openvino": version(), **machine.cpu_facts(), **asked}
