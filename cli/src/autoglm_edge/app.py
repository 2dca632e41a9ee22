"""Wiring of the command line: which command lives where, and how errors end."""

from __future__ import annotations

import signal
import sys

import typer
from rich.text import Text

from autoglm_edge import bundle, flash, fleet
from autoglm_edge.bench import bench
from autoglm_edge.console import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED, err
from autoglm_edge.convert import convert
from autoglm_edge.demo.errors import DemoError
from autoglm_edge.demo_command import demo
from autoglm_edge.targets import targets
from autoglm_edge_converter.errors import ConversionError
from autoglm_edge_firmware.errors import FirmwareError
from autoglm_edge_fleet.errors import FleetError
from autoglm_edge_protocol.errors import ProtocolError

USER_ERRORS: tuple[type[Exception], ...] = (
    ProtocolError,
    ConversionError,
    FleetError,
    FirmwareError,
    DemoError,
    OSError,
)
"""Errors whose text says to a user what failed and why; anything else is a defect and shows its traceback."""


def build() -> typer.Typer:
    """Return the command with all its sub-commands."""
    app = typer.Typer(
        name="autoglm-edge",
        help="From a model file to a smaller, faster, verified model on every board of a fleet.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.command()(convert)
    app.command()(targets)
    app.command()(bench)
    app.add_typer(bundle.app, name="bundle")
    app.add_typer(fleet.app, name="fleet")
    app.add_typer(flash.app, name="flash")
    app.command()(demo)
    return app


def main() -> None:
    """Run the command line."""
    # As Ctrl-C: what was begun is cleaned up. A command that runs a daemon puts its own handler in the place.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        build()()
    except USER_ERRORS as error:
        # As text, never as markup: a path or a pattern may well have square brackets.
        err.print(Text.assemble(("autoglm-edge:", "red"), f" {error}"), soft_wrap=True)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
