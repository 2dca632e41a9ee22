"""`autoglm-edge demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from autoglm_edge.console import EXIT_FAILED, err, out, print_json


def demo(
    output: Annotated[Path, typer.Option(help="Where everything is written; emptied first.")] = Path("demo-output"),
    broker: Annotated[
        str | None, typer.Option(help="mosquitto or nats; the first that is installed when left out.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON; all else goes to the error output.")
    ] = False,
) -> None:
    """Show the whole path on this machine: convert, publish, deploy to three agents, infer, report.

    A real file-type classifier is converted to FP32 and INT8 with files of this machine, deployed over a real broker to
    three agents while they are asked about other files, and a damaged bundle is refused. Needs no root, no network and
    no board; takes one to two minutes.
    """
    from autoglm_edge.demo.finale import show, summary
    from autoglm_edge.demo.play import play

    console = err if as_json else out
    began = time.monotonic()
    run = play(output.resolve(), console, broker)
    show(run, console)
    console.print(f"[dim]{time.monotonic() - began:.0f} s[/dim]")
    if as_json:
        print_json(summary(run))
    if run.traffic.failures:
        raise typer.Exit(EXIT_FAILED)
