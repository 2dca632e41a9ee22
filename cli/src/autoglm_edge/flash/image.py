"""`autoglm-edge flash image`: a card's image from Debian packages and the agent's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from autoglm_edge.console import out
from autoglm_edge.flash.bars import Bars
from autoglm_edge.flash.options import (
    ClaimOption,
    CountryOption,
    DryRunOption,
    FleetOption,
    PackageOption,
    PrefixOption,
    WifiFileOption,
    WifiOpenOption,
    WifiOption,
    find_claim,
    find_package,
    read_wifi,
)
from autoglm_edge_firmware.customise.payload import Payload
from autoglm_edge_firmware.image import ImagePlan, apt_sources, build_image
from autoglm_edge_firmware.image.boards import BOARDS
from autoglm_edge_firmware.image.boards import board as find_board
from autoglm_edge_firmware.media import block_map
from autoglm_edge_firmware.package.build import build_time, own_checkout


def image(
    output: Annotated[Path, typer.Option("--output", "-o", help="card.img, card.img.xz or card.img.zst.")],
    board: Annotated[str, typer.Option("--board", help=f"One of {', '.join(BOARDS)}.")] = "rpi4",
    package: PackageOption = None,
    claim: ClaimOption = None,
    fleet: FleetOption = None,
    wifi: WifiOption = None,
    wifi_passphrase_file: WifiFileOption = None,
    wifi_open: WifiOpenOption = False,
    wifi_country: CountryOption = "",
    hostname_prefix: PrefixOption = "",
    ssh_key: Annotated[
        Path | None, typer.Option("--ssh-key", metavar="FILE.pub", help="Who may log in as root, with this key alone.")
    ] = None,
    add: Annotated[list[str] | None, typer.Option("--add", metavar="PACKAGE", help="A Debian package more.")] = None,
    root_size: Annotated[int | None, typer.Option(min=256, metavar="MIB", help="Of the root; else by content.")] = None,
    apt: Annotated[
        Path | None, typer.Option("--apt-sources", metavar="FILE", help="Debian's packages; else this machine's own.")
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", help="The time of its files; else SOURCE_DATE_EPOCH, or the commit's."),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Make an image with a boot, a root and a data partition, which holds models and state and grows to the card's end.

    It is made from Debian packages alone and needs root, for the owners of files. Beside it are its checksum, its
    block map and its bill of materials (SPDX). The same inputs give the same bytes. An image without a claim serves
    any number of boards: `flash write` gives each card its own.

    Example: sudo autoglm-edge flash image --board rpi4 --wifi Plant --hostname-prefix plant-a -o card.img.xz
    """
    began = time.monotonic()
    known = find_board(board)
    plan = ImagePlan(
        board=known,
        output=output.absolute(),
        payload=Payload(
            find_package(package, known.architecture),
            find_claim(claim, fleet, make=not dry_run),
            read_wifi(wifi, wifi_passphrase_file, wifi_open, wifi_country),
            hostname_prefix,
        ),
        epoch=build_time(own_checkout()) if epoch is None else epoch,
        sources=apt or apt_sources.usual(),
        root_mib=root_size,
        ssh_key=ssh_key.read_text() if ssh_key else None,
        more_packages=tuple(add or ()),
    )
    if dry_run:
        for line in plan.lines():
            out.print(line, markup=False, soft_wrap=True)
        return
    with Bars() as bars:
        made = build_image(plan, bars.of(output.name))
    size = made.stat().st_size
    out.print(f"{made} ({size / 1e6:.0f} MB) in {time.monotonic() - began:.0f} s", markup=False, soft_wrap=True)
    out.print(f"beside it: {block_map.beside(made).name}, {made.name}.sha256, {made.name}.spdx.json", markup=False)
