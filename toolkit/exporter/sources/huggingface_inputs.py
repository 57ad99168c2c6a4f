"""What a Hugging Face model takes, from its configuration and its tokenizer's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from toolkit.exporter.adapter import argument_names
from toolkit.exporter.sources.huggingface_images import processed_size, read_json
from toolkit.tensors import TensorSpec


def infer_inputs(module: nn.Module, folder: Path) -> tuple[TensorSpec, ...] | None:
    """Specs of the inputs; None for a kind of model that is not known here."""
    config: Any = module.config
    takes = argument_names(module)
    main = str(getattr(module, "main_input_name", ""))
    if main == "pixel_values":
        return (_pixels(config, folder),)
    if main == "input_values" and hasattr(config, "num_mel_bins"):  # a spectrogram, not a waveform
        return (TensorSpec("input_values", "float32", ("batch", int(config.max_length), int(config.num_mel_bins))),)
    if main == "input_values":
        return (TensorSpec("input_values", "float32", ("batch", "samples")),)
    if main == "input_features" and not getattr(config, "is_encoder_decoder", False):
        width = int(getattr(config, "num_mel_bins", 80))
        return (TensorSpec("input_features", "float32", ("batch", "frames", width)),)
    if main == "input_ids":
        return _tokens(config, takes, folder)
    return None


def _pixels(config: Any, folder: Path) -> TensorSpec:
    channels = int(getattr(config, "num_channels", 3) or 3)
    size = getattr(config, "image_size", None) or processed_size(folder)
    height, width = (size, size) if isinstance(size, int) else size or ("height", "width")
    return TensorSpec("pixel_values", "float32", ("batch", channels, height, width))


def _tokens(config: Any, takes: list[str], folder: Path) -> tuple[TensorSpec, ...]:
    text = getattr(config, "get_text_config", lambda: config)()
    wanted = read_json(folder / "tokenizer_config.json").get("model_input_names") or ["input_ids", "attention_mask"]
    if getattr(text, "type_vocab_size", 0) > 1 and not (folder / "tokenizer_config.json").is_file():
        wanted = [*wanted, "token_type_ids"]
    highest = {
        "input_ids": int(text.vocab_size) - 1,
        "attention_mask": 1,
        "token_type_ids": int(getattr(text, "type_vocab_size", 1) or 1) - 1,
    }
    shape = ("batch", "seq")
    specs = [
        TensorSpec(name, "int64", shape, (0, highest[name])) for name in highest if name in wanted and name in takes
    ]
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in takes:
        decoded = ("batch", "decoder_seq")
        specs.append(TensorSpec("decoder_input_ids", "int64", decoded, (0, highest["input_ids"])))
    return tuple(specs)
