"""`autoglm-edge flash package`: the agent as a Debian package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoglm_edge.console import out


def package(
    arch: Annotated[
        list[str] | None, typer.Option("--arch", help="amd64, arm64 or armhf; may be given several times.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the packages.")] = Path("dist"),
    python: Annotated[
        list[str] | None,
        typer.Option("--python", help="A Python to pack wheels for, such as 3.10; may be given several times."),
    ] = None,
    revision: Annotated[
        int | None, typer.Option(min=1, help="A part for the end of the version: the higher one is newer.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--source", help="The checkout to build from; else the one that this command is of.")
    ] = None,
) -> None:
    """Build the agent's package for boards with Debian, Raspberry Pi OS or Ubuntu; it needs no network there.

    It is made for the Pythons of Debian 12 and 13 (32 bits: Debian 12). For Ubuntu 22.04 and JetPack 6 give
    --python 3.10, for Ubuntu 24.04 --python 3.12. The same checkout gives the same bytes. The script install.sh, which
    is put beside it, installs or upgrades it on a running board.

    Example: autoglm-edge flash package --arch arm64 --arch armhf -o packages
    """
    from autoglm_edge_firmware.package.build import build_package, write_installer

    for name in arch or ["arm64"]:
        path = build_package(name, output, checkout=source, pythons=python or (), revision=revision)
        out.print(f"{path} ({path.stat().st_size / 1e6:.0f} MB)", soft_wrap=True)
    out.print(f"{write_installer(output, source)}: sudo sh install.sh, on a running board")
