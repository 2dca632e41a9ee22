"""`autoglm-edge bundle show|verify`: what a bundle holds, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from autoglm_edge.console import out, print_json
from autoglm_edge_protocol import bundle
from autoglm_edge_protocol.manifest import Manifest, Variant, common_metric

app = typer.Typer(help="Look into bundles and check them.", no_args_is_help=True)

BundlePath = Annotated[
    Path, typer.Argument(metavar="PATH", help="A bundle directory, or a packed NAME-VERSION.bundle.")
]


@app.command()
def show(
    path: BundlePath,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Print the variants of a bundle: quality, size, speed and what a device needs to run each."""
    with bundle.opened(path) as directory:
        manifest = bundle.read_manifest(directory)
    if as_json:
        print_json(manifest.model_dump(mode="json"))
        return
    total = sum(entry.size_bytes for entry in manifest.files)
    source = manifest.provenance.source
    out.print(f"[bold]{manifest.id}[/bold]  from {escape(source.file)} ({megabytes(source.size_bytes)})")
    out.print(variants_table(manifest))
    for variant in manifest.variants:
        out.print(
            f"[dim]{variant.id} needs {escape('; '.join((needs(variant), *variant.notes)))}[/dim]", soft_wrap=True
        )
        out.print(f"[dim]{variant.id}: {escape(certainty(variant))}[/dim]", soft_wrap=True)
    out.print(f"{len(manifest.files)} files, {megabytes(total)}; made by {escape(manifest.provenance.converter)}")


@app.command()
def verify(
    path: BundlePath,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was verified as JSON.")] = False,
) -> None:
    """Check that a bundle is complete and holds the bytes that its manifest promises.

    Exit code 0: it does; 1: it does not, one line says what is wrong.
    """
    with bundle.opened(path) as directory:
        manifest = bundle.verify(directory)
    if as_json:
        print_json(
            {"id": str(manifest.id), "files": len(manifest.files), "variants": [v.id for v in manifest.variants]}
        )
        return
    out.print(f"{manifest.id} is whole: {len(manifest.files)} files, {len(manifest.variants)} variants")


def variants_table(manifest: Manifest) -> Table:
    """Return the variants as a table, in the order of the manifest."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    # A name that is cut off cannot be copied.
    table.add_column("variant", no_wrap=True, min_width=max(len(variant.id) for variant in manifest.variants))
    table.add_column("precision")
    metric = common_metric(variant.quality.metric for variant in manifest.variants)
    for column in (metric, "noise", "size", "latency", "speed"):
        table.add_column(column, justify="right")
    for variant in manifest.variants:
        table.add_row(*_row(manifest, variant))
    return table


def _row(manifest: Manifest, variant: Variant) -> tuple[str, ...]:
    noise = [value for value in variant.quality.sqnr_db.values() if value is not None]
    # Whole numbers have no noise: they are equal or they are not.
    differs = variant.quality.metric == "equal" and variant.quality.value < 1.0
    return (
        variant.id,
        variant.precision,
        f"{variant.quality.value:.2%}",
        f"{min(noise):.1f} dB" if noise else "" if differs else "identical",
        megabytes(sum(manifest.file(path).size_bytes for path in variant.files)),
        f"{variant.latency.median_us / 1000:.3f} ms",
        f"{variant.latency.speedup:.2f}x",
    )


def certainty(variant: Variant) -> str:
    """Return how sure quality and speed are, `accuracy 97.50% (95 % interval 91.34% to 99.31%) on 80 samples`."""
    quality = variant.quality
    known = quality.low is not None and quality.high is not None
    interval = f" (95 % interval {quality.low:.2%} to {quality.high:.2%})" if known else ""
    original = f", the original's is {quality.baseline:.2%}" if quality.baseline != 1.0 else ""
    elsewhere = " and ".join(variant.latency.unknown_on)
    speed = f"; how fast it is on {elsewhere} is not known, the device measures" if elsewhere else ""
    return f"{quality.metric} {quality.value:.2%}{interval} on {quality.samples} samples{original}{speed}"


def needs(variant: Variant) -> str:
    """Return what a device must have to run a variant, `onnxruntime 1.17 or later, 91 MB of memory`."""
    version, memory = variant.needs.min_version, variant.needs.memory_bytes
    runtime = f"{variant.needs.runtime} {version} or later" if version else variant.needs.runtime
    return f"{runtime}, {memory / 1e6:.0f} MB of memory" if memory else runtime


def megabytes(size_bytes: int) -> str:
    """Return a size as people read it, `3.02 MB`."""
    return f"{size_bytes / 1e6:.2f} MB"
