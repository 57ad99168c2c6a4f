"""``toolkit bundle``: create, extend, check, show and pack what an application ships."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit.bundle.archive import pack as pack_folder
from toolkit.bundle.compose import bundle_of, variant_of
from toolkit.bundle.manifest import Manifest, PreparedForm, Variant
from toolkit.bundle.reader import Bundle, check_variant, open_bundle
from toolkit.bundle.writer import VariantSource, add_variant, create_bundle
from toolkit.cli.options import emit, format_option, say
from toolkit.errors import NotApplicable, UsageError
from toolkit.files import sha256, writable_output
from toolkit.providers import registry
from toolkit.targets import Target

if TYPE_CHECKING:
    from toolkit.runtime.preparing import Made


@click.group()
def bundle() -> None:
    """Create, extend, check and pack what an application ships."""


_path = click.Path(path_type=Path)
_target_option = click.option(
    "--target", "targets", multiple=True, required=True, help="A target this file was made for; may be repeated."
)
_name_option = click.option("--name", help="Name of the variant; its precision and first target by default.")


@bundle.command()
@click.argument("model", type=_path)
@click.option("-o", "--output", type=_path, required=True, help="The bundle folder to make.")
@_target_option
@_name_option
@click.option("--licence", default="", help="Licence of the model, recorded in the manifest.")
@click.option(
    "--fuse-preprocessing",
    "fuse",
    is_flag=True,
    help="Build the end of the recorded preprocessing into the graph: uint8 pictures in.",
)
@format_option
def create(
    model: Path, output: Path, targets: tuple[str, ...], name: str | None, licence: str, fuse: bool, output_format: str
) -> None:
    """Make a bundle folder of MODEL, an .onnx file."""
    from toolkit.graph.facts import facts

    with _fused(model) if fuse else contextlib.nullcontext(model) as file:
        known = facts(file)
        source = variant_of(file, known.precision, _targets(targets), name)
        manifest = bundle_of(file, known.inputs, known.outputs, known.metadata, licence, origin=model)
        _report(_tried(create_bundle(output, manifest, [source]), source), output_format)


@contextlib.contextmanager
def _fused(model: Path) -> Iterator[Path]:
    """A copy of ``model`` with its preprocessing built in, for as long as the block lasts."""
    from toolkit.optimizer.fuse_preprocessing import fuse_preprocessing

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / model.name
        report = fuse_preprocessing(model, output)
        for name, steps in report.built_in.items():
            say(f"built into the graph of '{name}': {', '.join(steps)}; largest error {report.worst:.1e} of the peak")
        yield output


@bundle.command()
@click.argument("path", metavar="BUNDLE", type=_path)
@click.argument("model", type=_path)
@_target_option
@_name_option
@format_option
def add(path: Path, model: Path, targets: tuple[str, ...], name: str | None, output_format: str) -> None:
    """Add MODEL, an .onnx file with the same inputs and outputs, to a bundle folder."""
    from toolkit.graph.facts import facts

    known = facts(model)
    opened = open_bundle(path)
    _check_same(opened.manifest, known.inputs, known.outputs, model)
    source = variant_of(model, known.precision, _targets(targets), name)
    _report(_tried(add_variant(path, source), source), output_format)


def _tried(made: Bundle, source: VariantSource) -> Bundle:
    """The bundle with the record whether rows of the new variant are independent, so that calls may share batches."""
    from toolkit.runtime.records import record_rows

    return record_rows(made, source.variant.name)


@bundle.command()
@click.argument("path", metavar="BUNDLE", type=_path)
@format_option
def verify(path: Path, output_format: str) -> None:
    """Check every file of a bundle, folder or zip, against its hashes."""
    opened = open_bundle(path)
    _check_all(opened)
    _report(opened, output_format)


@bundle.command()
@click.argument("path", metavar="BUNDLE", type=_path)
@click.option("-o", "--output", type=_path, required=True, help="The single file to write.")
@format_option
def pack(path: Path, output: Path, output_format: str) -> None:
    """Write a bundle folder as one file that 'toolkit.load' opens as well."""
    opened = open_bundle(path)
    if opened.folder != opened.path:
        raise UsageError("this bundle is packed already", where=path)
    writable_output(output)
    _check_all(opened)
    pack_folder(opened.folder, output)
    result = {"bundle": str(output), "sha256": sha256(output), "size_bytes": output.stat().st_size}
    emit(result, output_format, lambda: f"{output}: {result['size_bytes']} bytes, sha256 {result['sha256']}")


@bundle.command()
@click.argument("path", metavar="BUNDLE", type=_path)
@click.option("--target", "targets", multiple=True, help="A target of the bundle's; all of them by default.")
@format_option
def prepare(path: Path, targets: tuple[str, ...], output_format: str) -> None:
    """Write into a bundle folder what engines make of its variants ahead of time."""
    from toolkit.runtime.preparing import prepare_bundle

    opened, made = prepare_bundle(path, targets, say)
    result = {"bundle": str(path), "made": made, "manifest": opened.manifest}
    emit(result, output_format, lambda: _prepared_table(made))
    if not any(item.size_bytes for item in made):
        raise NotApplicable("nothing was prepared", where=path, got=made[0].reason if made else "no variant")


def _prepared_table(made: Sequence[Made]) -> str:
    return "\n".join(
        f"{item.variant} for {item.target}: {item.reason or f'{item.size_bytes / 1e6:.1f} MB, {item.note}'}"
        for item in made
    )


def _check_all(opened: Bundle) -> None:
    for variant in opened.manifest.variants:
        owners: tuple[Variant | PreparedForm, ...] = (variant, *variant.prepared)
        for owner in owners:
            check_variant(opened, owner, "always")


def _targets(texts: tuple[str, ...]) -> tuple[Target, ...]:
    return registry.targets(texts)


def _check_same(manifest: Manifest, inputs: tuple[object, ...], outputs: tuple[object, ...], model: Path) -> None:
    for kind, own, other in (("inputs", manifest.inputs, inputs), ("outputs", manifest.outputs, outputs)):
        if [str(spec) for spec in own] != [str(spec) for spec in other]:
            raise UsageError(
                f"the file's {kind} differ from the bundle's",
                where=model,
                got=", ".join(map(str, other)),
                expected=", ".join(map(str, own)),
            )


def _report(opened: Bundle, output_format: str) -> None:
    manifest = opened.manifest
    result = {"bundle": str(opened.path), "manifest": manifest}
    emit(result, output_format, lambda: _table(opened))


def _table(opened: Bundle) -> str:
    lines = [f"{opened.path}: {len(opened.manifest.variants)} variant(s), every hash holds"]
    for variant in opened.manifest.variants:
        size = sum(record.size_bytes for record in variant.files.values())
        names = ", ".join(target.name for target in variant.targets)
        lines.append(f"  {variant.name}: {variant.precision}, {size / 1e6:.2f} MB, for {names}")
        for form in variant.prepared:
            size = sum(record.size_bytes for record in form.files.values())
            lines.append(f"    prepared for {form.target}: {size / 1e6:.2f} MB")
    return "\n".join(lines)
