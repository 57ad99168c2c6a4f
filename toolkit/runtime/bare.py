"""Bare model files: what is asked of an opening, and the check that an ONNX file from a stranger needs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from toolkit import stamps
from toolkit.bundle.kind import CHECK_VERSION, Verify
from toolkit.providers import registry
from toolkit.targets import Target


class Opening(msgspec.Struct, frozen=True):
    """How :func:`toolkit.load` was asked to open; see there."""

    verify: Verify = "once"
    prepared: bool | None = None
    trust_prepared: bool = False


def check_bare(path: Path, target: Target, opening: Opening) -> None:
    """Check the structure of an ONNX file that comes without a bundle, once while it is not touched.

    Raises:
        InvalidModel: it does not hold together.
    """
    if path.suffix != ".onnx" or not registry.provider(target.provider).accepts_onnx or opening.trust_prepared:
        return
    what = f"structure {CHECK_VERSION}"
    if opening.verify == "once" and stamps.passed(path, what):
        return
    from toolkit.onnxfile.check import check_model  # not needed when it passed before

    if not check_model(path):  # the state of external data is not in the stamp
        stamps.remember(path, what)
