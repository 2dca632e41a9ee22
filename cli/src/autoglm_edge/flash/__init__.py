"""`autoglm-edge flash`: from a bare board to a device of the fleet. Each command is one module."""

from __future__ import annotations

import typer

from autoglm_edge.flash.customise import customise
from autoglm_edge.flash.doctor import doctor
from autoglm_edge.flash.image import image
from autoglm_edge.flash.package import package
from autoglm_edge.flash.write import write

app = typer.Typer(no_args_is_help=True, help="Bring the agent onto boards: its Debian package, card images, cards.")
app.command()(image)
app.command()(customise)
app.command()(write)
app.command()(doctor)
app.command()(package)
