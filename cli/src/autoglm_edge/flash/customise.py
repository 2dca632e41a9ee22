"""`autoglm-edge flash customise`: the agent and a claim into an image that the user already trusts."""

from __future__ import annotations

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
from autoglm_edge_firmware.customise.perform import customise as perform
from autoglm_edge_firmware.customise.perform import look
from autoglm_edge_firmware.customise.system import Way


def customise(
    existing: Annotated[
        Path,
        typer.Argument(metavar="EXISTING", help="An image (.img, .xz, .gz, .zst), a card, or the folder of a root."),
    ],
    package: PackageOption = None,
    arch: Annotated[str, typer.Option("--arch", help="What the package is built for, where none is given.")] = "arm64",
    claim: ClaimOption = None,
    fleet: FleetOption = None,
    wifi: WifiOption = None,
    wifi_passphrase_file: WifiFileOption = None,
    wifi_open: WifiOpenOption = False,
    wifi_country: CountryOption = "",
    hostname_prefix: PrefixOption = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The customised image; else EXISTING itself is changed.")
    ] = None,
    way: Annotated[
        Way | None, typer.Option(help="How the first boot is told; else as the image itself does it.")
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Put the agent, its claim and the way into a network into an image that you trust, without mounting it.

    For Raspberry Pi OS (every way in which its own imager does it), Debian and Ubuntu; and for the rootfs folder of
    NVIDIA's Linux_for_Tegra. The board installs the package from the card at its first boot, without network.

    Example: autoglm-edge flash customise raspios-lite.img.xz --claim claims/1.json --wifi Plant -o card.img.xz
    """
    found = find_claim(claim, fleet, make=not dry_run)
    network = read_wifi(wifi, wifi_passphrase_file, wifi_open, wifi_country)
    payload = Payload(find_package(package, arch), found, network, hostname_prefix)
    if dry_run:
        looked = look(existing, payload, way)
        out.print(f"system  {looked.system.name}, {looked.system.architecture or 'unknown'}", markup=False)
        for line in looked.plan.lines():
            out.print(line, markup=False, soft_wrap=True)
        return
    with Bars() as bars:
        done = perform(existing, payload, output, way, bars.of(existing.name))
    told = f"{done.path}: {done.system.name}, told by {done.plan.way}; the agent is installed at its first boot"
    out.print(told, markup=False, soft_wrap=True)
