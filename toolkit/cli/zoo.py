"""``toolkit zoo``: list and train the built-in models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.options import emit, format_option, output_option, progress, say
from toolkit.exporter.zoo import zoo_module
from toolkit.files import writable_output

if TYPE_CHECKING:
    from model_zoo.entry import ZooEntry


@click.group()
def zoo() -> None:
    """List and train the built-in models."""


@zoo.command("list")
@format_option
def list_models(output_format: str) -> None:
    """List the models of the zoo; export one as zoo:NAME."""
    entries = tuple(zoo_module("registry").entries().values())
    emit({"models": [_described(item) for item in entries]}, output_format, lambda: table(entries))


@zoo.command("train")
@click.argument("name")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Samples; the digits models have their own (docs/data.md)."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of the recipe's.")
@click.option("--export-data", type=click.Path(path_type=Path), help="Also write the digits' splits into this folder.")
@output_option
@format_option
def train_model(
    name: str, data: Path | None, epochs: int | None, export_data: Path | None, output: Path, output_format: str
) -> None:
    """Train a model of the zoo and write its weights (.safetensors)."""
    entry = zoo_module("registry").entry(name)
    writable_output(output)
    training = zoo_module("training")
    train, test = zoo_module("sources").training_data(entry, data)
    if export_data is not None:
        for path in zoo_module("digits").write_splits(export_data).values():
            say(f"wrote {path}")
    with progress(f"training {entry.name}", epochs or getattr(entry.recipe, "epochs", None)) as advance:
        model, report = training.train(
            entry,
            train,
            test,
            lambda epoch, _, loss: advance(1, f"training {entry.name}, loss {loss:.3f}"),
            epochs=epochs,
        )
    training.save_weights(model, output, entry.name)
    result = {"output": output, **{key: getattr(report, key) for key in report.__dataclass_fields__}}
    emit(result, output_format, lambda: _summary(result))


def table(entries: tuple[ZooEntry, ...]) -> str:
    """All models in 80 columns: what is trained here is marked."""
    width = max(len(item.name) for item in entries)
    lines = [f"{'model':<{width}}  {'family':<11} {'weights':>7}  description"]
    for item in entries:
        mark = "*" if item.recipe is not None else " "
        text = item.description.partition(";")[0]
        lines.append(f"{item.name:<{width}}{mark} {item.family:<11} {_count(item.parameters):>7}  {text}"[:80])
    return "\n".join([*lines, "", "* has a training recipe: toolkit zoo train NAME; the others get random weights"])


def _count(parameters: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.1f} {unit}"
    return str(parameters)


def _described(item: ZooEntry) -> dict[str, Any]:
    fields = (
        "name",
        "family",
        "description",
        "inputs",
        "outputs",
        "task",
        "dataset",
        "licence",
        "parameters",
        "labels",
    )
    return {**{name: getattr(item, name) for name in fields}, "trainable": item.recipe is not None}


def _summary(result: dict[str, Any]) -> str:
    return (
        f"{result['output']}: {result['model']}, {result['epochs']} epochs on {result['train_samples']} samples\n"
        f"test accuracy {result['test_accuracy']:.4f} on {result['test_samples']} samples that training did not see"
    )
