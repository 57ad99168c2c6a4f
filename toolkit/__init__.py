"""Export PyTorch models to ONNX, prove that they still compute the same, measure and run them on every provider.

The verbs are imported when they are first used, so ``import toolkit`` loads no engine and no torch. Packages are agents
(``toolkit.exporter``), verbs are functions (``toolkit.export``): a package named like a verb would shadow it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.evaluator.api import evaluate as evaluate
    from toolkit.exporter.api import export as export
    from toolkit.optimizer.api import optimize as optimize
    from toolkit.profiler.api import profile as profile
    from toolkit.quantizer.api import quantize as quantize
    from toolkit.runtime.loader import load as load
    from toolkit.verifier.api import verify as verify

__version__ = "0.1.0"

# verb: the module that defines it.
_VERBS = {
    "load": "toolkit.runtime.loader",
    "export": "toolkit.exporter.api",
    "optimize": "toolkit.optimizer.api",
    "quantize": "toolkit.quantizer.api",
    "verify": "toolkit.verifier.api",
    "evaluate": "toolkit.evaluator.api",
    "profile": "toolkit.profiler.api",
}
__all__ = ["__version__", *_VERBS]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        try:
            return getattr(importlib.import_module(_VERBS[name]), name)
        except ModuleNotFoundError as exc:
            from toolkit.errors import missing_dependency

            raise missing_dependency(exc) or exc from exc
    raise AttributeError(f"module 'toolkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
