"""`autoglm-edge bench`: how fast a model, or each variant of a bundle, runs on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from autoglm_edge.console import err, out, print_json
from autoglm_edge.convert_options import parse_shape

if TYPE_CHECKING:
    from autoglm_edge_converter.bench import Report


def bench(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL_OR_BUNDLE", help="An ONNX or TFLite model, a bundle directory, or a packed bundle."
        ),
    ],
    runs: Annotated[int, typer.Option(help="Of each; those that would take over half a minute make fewer.")] = 100,
    threads: Annotated[str, typer.Option(metavar="1,2", help="Numbers of threads to try.")] = "1",
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1,3,224,224", help="The free axes of a model's input. Repeatable."),
    ] = None,
    ops: Annotated[
        list[Path] | None, typer.Option(metavar="LIBRARY.so", help="Custom operators of a model. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Time a model or every variant of a bundle, with every provider of the runtime that really works here.

    Each is tried in a process of its own, with falling back to the CPU forbidden, and all take turns. A bundle is fed
    its golden inputs, a model random numbers. `speed` is the processor time of the first line with as many threads,
    divided by the line's own.

    Exit codes: 0 something works here; 1 nothing does, one line says why.

    Example: autoglm-edge bench bundles/res-1.0.0.bundle --threads 1,2
    """
    from autoglm_edge_converter.bench import Settings
    from autoglm_edge_converter.bench import bench as run

    settings = Settings(
        runs=runs, threads=parse_threads(threads), shapes=dict(map(parse_shape, shape or ())), ops=tuple(ops or ())
    )
    with err.status("load") as status:
        report = run(path, settings, lambda text: status.update(escape(text)))
    if as_json:
        print_json(as_document(report))
    else:
        _print(report)


def parse_threads(text: str) -> tuple[int, ...]:
    """Read `1,2`. Raises typer.BadParameter."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers like 1,2", param_hint="--threads") from None


def _print(report: Report) -> None:
    where = escape(f"{report.inputs}, {report.runtime}, {report.machine}")
    out.print(f"[bold]{escape(report.subject)}[/bold]  {where}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("form", "provider"):
        table.add_column(column)
    for column in ("threads", "median", "p90", "CPU", "speed", "load", "memory"):
        table.add_column(column, justify="right")
    for contender, lap in report.laps:
        table.add_row(
            contender.form,
            contender.provider.removesuffix("ExecutionProvider"),
            str(contender.threads),
            *(f"{value_us / 1000:.3f} ms" for value_us in (lap.median_us, lap.p90_us, lap.cpu_us)),
            f"{lap.speedup:.2f}x",
            f"{lap.load_us / 1000:.0f} ms",
            f"{lap.peak_rss_bytes / 1e6:.0f} MB",
        )
    out.print(table)
    for who, reason in problems(report).items():
        out.print(f"[dim]not here: {escape(who)}: {escape(reason)}[/dim]", soft_wrap=True)


def problems(report: Report) -> dict[str, str]:
    """Return what does not work by whom: a provider by itself where it runs nothing at all, else each contender."""
    working = {contender.provider for contender, _ in report.laps}
    return {
        str(contender)
        if contender.provider in working
        else contender.provider.removesuffix("ExecutionProvider"): reason
        for contender, reason in report.problems
    }


def as_document(report: Report) -> dict[str, Any]:
    """Return the result for a script."""
    return {
        "subject": report.subject,
        "inputs": report.inputs,
        "machine": report.machine,
        "runtime": report.runtime,
        "laps": [asdict(contender) | asdict(lap) for contender, lap in report.laps],
        "problems": [asdict(contender) | {"problem": reason} for contender, reason in report.problems],
    }
