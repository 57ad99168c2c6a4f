"""``toolkit bundle``: create, extend, check, show and pack what an application ships."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.bundle.archive import pack as pack_folder
from toolkit.bundle.compose import bundle_of, variant_of
from toolkit.bundle.manifest import Manifest
from toolkit.bundle.reader import Bundle, check_variant, open_bundle
from toolkit.bundle.writer import VariantSource, add_variant, create_bundle
from toolkit.cli.options import emit, format_option
from toolkit.errors import UsageError
from toolkit.files import sha256, writable_output
from toolkit.providers import registry
from toolkit.targets import Target


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
@format_option
def create(
    model: Path, output: Path, targets: tuple[str, ...], name: str | None, licence: str, output_format: str
) -> None:
    """Make a bundle folder of MODEL, an .onnx file."""
    from toolkit.graph.facts import facts

    known = facts(model)
    source = variant_of(model, known.precision, _targets(targets), name)
    manifest = bundle_of(model, known.inputs, known.outputs, known.metadata, licence)
    _report(_tried(create_bundle(output, manifest, [source]), source), output_format)


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
    for variant in opened.manifest.variants:
        check_variant(opened, variant, "always")
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
    for variant in opened.manifest.variants:
        check_variant(opened, variant, "always")
    pack_folder(opened.folder, output)
    result = {"bundle": str(output), "sha256": sha256(output), "size_bytes": output.stat().st_size}
    emit(result, output_format, lambda: f"{output}: {result['size_bytes']} bytes, sha256 {result['sha256']}")


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
    return "\n".join(lines)
