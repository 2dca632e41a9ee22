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
    What is shipped for a target is run in the oldest supported version of its runtimes, see --tables-only of convert.

    Example: autoglm-edge convert res.onnx --calibration samples.npz --output bundles --target rpi4 --target rpi5
    """
    from autoglm_edge_converter.targets import TARGETS

    if as_json:
        print_json([asdict(target) | {"newest_opset": target.newest_opset} for target in TARGETS.values()])
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("target", "cores", "MB", "8-bit", "ORT", "opset", "LiteRT", "tflite", "accelerators"):
        table.add_column(column)
    for target in TARGETS.values():
        table.add_row(*_row(target))
    out.print(table)
    out.print(
        "[dim]ORT (ONNX Runtime), LiteRT and tflite (tflite-runtime): the oldest version that is supported, of those "
        "with wheels for the board. Processors and all else: --json.[/dim]"
    )


def _row(target: Target) -> tuple[str, ...]:
    from autoglm_edge_converter.targets import LITERT, MB, ONNX, TFLITE_RUNTIME

    def oldest(name: str) -> str:
        runtime = target.runtime(name)
        return runtime.oldest if runtime else "-"

    return (
        target.name,
        str(target.cores),
        f"{target.memory_bytes // MB}",
        " ".join(target.instructions),
        oldest(ONNX),
        str(target.newest_opset or "-"),
        oldest(LITERT),
        oldest(TFLITE_RUNTIME),
        " ".join(target.accelerators) or "-",
    )
