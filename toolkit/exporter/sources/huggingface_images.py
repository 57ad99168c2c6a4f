"""An image processor's configuration as preprocessing of this toolkit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.preprocess import CenterCrop, InputSteps, Layout, Normalize, Preprocessing, Resize, Scale, Step

# PIL's numbers for resampling filters, as the files hold them.
_FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_FILES = ("preprocessor_config.json", "processor_config.json")
# Switches of image processors that have no step here; on, they make the conversion incomplete.
_UNKNOWN = ("do_pad", "do_reduce_labels", "do_thumbnail", "do_align_long_axis", "do_flip_channel_order")


def read_json(path: Path) -> Mapping[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}


def image_preprocessing(folder: Path) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """Resizing, cropping, scaling and normalising as the folder's image processor does it, and notes on what is left.

    Source: transformers' image processors (``do_resize``, ``size``, ``resample``, ``do_center_crop``, ``crop_size``,
    ``crop_pct``, ``do_rescale``, ``rescale_factor``, ``do_normalize``, ``image_mean``, ``image_std``).
    """
    config = next((found for name in _FILES if (found := read_json(folder / name))), {})
    config = config.get("image_processor", config)
    if "image_mean" not in config and "size" not in config:
        return None, ()
    left = [name for name in (*_UNKNOWN, *_not_understood(config)) if config.get(name)]
    if left:
        return None, (f"the image processor is not converted, since it uses {', '.join(left)}",)
    steps: list[Step] = [*_resizing(config), Layout("NHWC", "NCHW")]
    if config.get("do_rescale", True):
        steps.append(Scale(float(config.get("rescale_factor", 1 / 255))))
    if config.get("do_normalize", True) and config.get("image_mean"):
        steps.append(Normalize(tuple(config["image_mean"]), tuple(config["image_std"])))
    return Preprocessing((InputSteps("pixel_values", tuple(steps), source="image"),)), ()


def _not_understood(config: Mapping[str, Any]) -> tuple[str, ...]:
    resizes = config.get("do_resize", True) and "size" in config
    size = config.get("size")
    known = isinstance(size, int) or (
        isinstance(size, Mapping) and set(size) in ({"height", "width"}, {"shortest_edge"})
    )
    odd = ("size",) if resizes and not known else ()
    return odd + (("resample",) if config.get("resample", 2) not in _FILTERS else ())


def _resizing(config: Mapping[str, Any]) -> list[Step]:
    steps: list[Step] = []
    how: Any = _FILTERS[config.get("resample", 2)]
    size = config.get("size")
    crop = config.get("crop_size", 224)
    if config.get("do_resize", True) and size is not None:
        if isinstance(size, int):
            size = {"shortest_edge": size} if config.get("do_center_crop") else {"height": size, "width": size}
        if "shortest_edge" in size:
            shortest = int(size["shortest_edge"])
            if config.get("crop_pct") and shortest < 384:  # ConvNeXt enlarges first, then crops to the size
                steps += [
                    Resize(shortest=int(shortest / config["crop_pct"]), filter=how),
                    CenterCrop(shortest, shortest),
                ]
            else:
                steps.append(Resize(shortest=shortest, filter=how))
        else:
            steps.append(Resize(height=int(size["height"]), width=int(size["width"]), filter=how))
    if config.get("do_center_crop"):
        sides = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        steps.append(CenterCrop(*sides))
    return steps


def processed_size(folder: Path) -> tuple[int, int] | None:
    """Height and width of the images that the folder's processor makes."""
    preprocessing, _ = image_preprocessing(folder)
    for step in reversed(preprocessing.inputs[0].steps if preprocessing else ()):
        if isinstance(step, CenterCrop) or (isinstance(step, Resize) and step.height):
            return step.height, step.width
    return None
