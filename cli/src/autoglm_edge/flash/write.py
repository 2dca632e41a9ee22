"""`autoglm-edge flash write`: an image onto cards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from autoglm_edge.console import EXIT_FAILED, EXIT_PARTIAL, err, out
from autoglm_edge.flash.bars import Bars
from autoglm_edge.flash.options import ClaimOption, DryRunOption
from autoglm_edge_firmware.errors import CardRefused, SettingRefused
from autoglm_edge_firmware.write import disks
from autoglm_edge_firmware.write.cards import Result, eject, write_cards
from autoglm_edge_firmware.write.claim_folder import ClaimFolder, OneClaim
from autoglm_edge_firmware.write.copying import Source, open_source
from autoglm_edge_firmware.write.disks import Disk


def write(
    image: Annotated[Path, typer.Argument(metavar="IMG", help="An image: .img, .img.xz, .img.gz or .img.zst.")],
    device: Annotated[
        list[Path] | None, typer.Argument(metavar="DEVICE", help="A card, such as /dev/sdb; with --many several.")
    ] = None,
    many: Annotated[
        bool, typer.Option("--many", help="Write several cards at once; without DEVICE, all of them.")
    ] = False,
    claim: ClaimOption = None,
    claims: Annotated[
        Path | None,
        typer.Option("--claims", metavar="DIR", help="A folder of claims, of which each card gets its own."),
    ] = None,
    confirm: Annotated[
        list[str] | None,
        typer.Option(
            "--confirm", metavar="NAME", help="The name of a device that may be erased, instead of being asked."
        ),
    ] = None,
    bmap: Annotated[
        Path | None, typer.Option("--bmap", metavar="FILE", help="The block map; else the one beside the image.")
    ] = None,
    keep: Annotated[bool, typer.Option("--no-eject", help="Leave the cards in use by this machine.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Write an image to a card, read all of it back, and give the card its own claim.

    Without DEVICE it lists the cards that are there. The disk of the running system, mounted and fixed disks are
    refused, and you are asked for the name of what is erased.

    Exit code 0: all is well; 1: nothing is; 3: some of the cards are (--many).

    Example: sudo autoglm-edge flash write card.img.xz --many --claims claims
    """
    if not device and not many:
        _list(disks.candidates(disks.installed()))
        return
    found = tuple(disks.find(path) for path in device) if device else disks.candidates(disks.installed())
    if not found:
        raise CardRefused("no card", "none is there that may be written: is one in the reader?")
    if len(found) > 1 and not many:
        raise SettingRefused("several cards at once are written with --many")
    if claim and (claims or len(found) > 1):
        raise SettingRefused("a claim is one board's: give a folder of claims with --claims")
    source = open_source(image, bmap)
    for each in found:
        disks.must_be_writable(each, source.image_bytes or 0)
    if dry_run:
        _tell(source, found)
        return
    _ask(found, confirm or ())
    given = ClaimFolder(claims) if claims else OneClaim(claim) if claim else None
    with Bars() as bars:
        results = write_cards(source, found, given, lambda disk: bars.of(disk.name))
    _report(results, keep)


def _list(found: Sequence[Disk]) -> None:
    if not found:
        err.print("no card is there that may be written")
        return
    table = Table("device", "size", "model", "serial", box=None, pad_edge=False, header_style="dim")
    for disk in found:
        table.add_row(str(disk.path), f"{disk.size_bytes / 1e9:.1f} GB", disk.model or "-", disk.serial or "-")
    out.print(table)


def _tell(source: Source, found: Sequence[Disk]) -> None:
    written = f"{source.written_bytes / 1e6:.0f} MB" if source.written_bytes else "all of it"
    for disk in found:
        told = f"{disk.path} ({disk.size_bytes / 1e9:.1f} GB, {disk.model or 'unknown'}): {written} of {source.path}"
        out.print(told, markup=False, soft_wrap=True)


def _ask(found: Sequence[Disk], confirmed: Sequence[str]) -> None:
    for disk in found:
        if disk.name in confirmed or str(disk.path) in confirmed:
            continue
        if not sys.stdin.isatty():
            raise SettingRefused(f"{disk.path} would be erased: say so with --confirm {disk.name}")
        told = f"{disk.path}, {disk.size_bytes / 1e9:.1f} GB, {disk.model or 'unknown'}: all of it is erased"
        err.print(told, markup=False, soft_wrap=True)
        if typer.prompt(f"its name ({disk.name}) to go on", err=True) != disk.name:
            raise SettingRefused("that is another name: nothing was written")


def _report(results: Sequence[Result], keep: bool) -> None:
    failed = [result for result in results if result.problem]
    for result in results:
        if result.problem:
            err.print(f"{result.disk.path}: not usable: {result.problem}", style="red", markup=False, soft_wrap=True)
            continue
        claim = f", claim {result.claim_id}" if result.claim_id else ""
        gone = ", can be pulled out" if not keep and eject(result.disk) else ""
        told = f"{result.disk.path}: written and read back, {result.written_bytes / 1e6:.0f} MB{claim}{gone}"
        out.print(told, markup=False, soft_wrap=True)
    if failed:
        raise typer.Exit(EXIT_FAILED if len(failed) == len(results) else EXIT_PARTIAL)
