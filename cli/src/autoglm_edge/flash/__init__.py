"""`autoglm-edge flash`: from a bare board to a device of the fleet. Each command is one module."""

from __future__ import annotations

import typer

from autoglm_edge.flash.package import package

app = typer.Typer(no_args_is_help=True, help="Bring the agent onto boards: its Debian package, card images, cards.")
app.command()(package)
