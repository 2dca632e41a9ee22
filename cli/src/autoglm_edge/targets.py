"""`autoglm-edge targets`: the classes of boards that a conversion can be made for."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from autoglm_edge.console import out, print_json

if TYPE_CHECKING:
    from autoglm_edge_converter.targets import Target


def targets(
    as_json: Annotated[bool, typer.Option("--json", help="Print them as one JSON document.")] = False,
) -> None:
    """List the boards that `convert --target` knows: what they have, and which runtimes have wheels for them.

    A target decides the newest operator set, the signs of 8-bit activations and how much memory a variant may take.
    The oldest supported version of each runtime is checked by a table, not by running it.

    Example: autoglm-edge convert res.onnx --calibration samples.npz --output bundles --target rpi4 --target rpi5
    """
    from autoglm_edge_converter.targets import TARGETS

    if as_json:
        print_json([asdict(target) | {"newest_opset": target.newest_opset} for target in TARGETS.values()])
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("target", "processor", "cores", "memory", "8-bit", "onnxruntime", "opset"):
        table.add_column(column)
    for target in TARGETS.values():
        table.add_row(*_row(target))
    out.print(table)
    out.print("[dim]armv7: ONNX Runtime has no wheel for 32-bit ARM; only TensorFlow Lite runs there.[/dim]")


def _row(target: Target) -> tuple[str, ...]:
    from autoglm_edge_converter.targets import MB, ONNX

    runtime = target.runtime(ONNX)
    return (
        target.name,
        target.about.rpartition(", ")[2],
        str(target.cores),
        f"{target.memory_bytes // MB} MB",
        " ".join(target.instructions),
        f"since {runtime.oldest}" if runtime else "no wheel",
        str(target.newest_opset) if target.newest_opset else "-",
    )
