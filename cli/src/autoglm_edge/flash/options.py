"""What `flash image` and `flash customise` have in common: what is put onto a card, and where secrets come from."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from autoglm_edge.console import err
from autoglm_edge.fleet_options import open_fleet
from autoglm_edge_firmware.customise.payload import Package, read_package
from autoglm_edge_firmware.errors import SettingRefused
from autoglm_edge_firmware.package.build import build_package
from autoglm_edge_firmware.settings.claim import must_be_valid, read_claim
from autoglm_edge_firmware.settings.wifi import Wifi, derive
from autoglm_edge_fleet.enrolment.claims import ClaimTerms
from autoglm_edge_protocol.claims import Claim

NETWORK_VARIABLE = "AUTOGLM_EDGE_WIFI_PASSPHRASE"
_CLAIM_LIFE_S = 30 * 86_400.0

PackageOption = Annotated[
    Path | None,
    typer.Option("--package", metavar="DEB", help="The agent's package; else it is built from this checkout."),
]
ClaimOption = Annotated[Path | None, typer.Option("--claim", metavar="FILE", help="The claim of the one board.")]
FleetOption = Annotated[
    Path | None,
    typer.Option(
        "--fleet", metavar="DIR", help="The fleet: without --claim one is made, with it it must be of this fleet."
    ),
]
WifiOption = Annotated[
    str | None,
    typer.Option(
        "--wifi",
        metavar="SSID",
        help=f"A wireless network. Its passphrase comes from --wifi-passphrase-file, else ${NETWORK_VARIABLE}, else "
        "you are asked; only the key that is derived from it gets onto the card.",
    ),
]
WifiFileOption = Annotated[
    Path | None, typer.Option("--wifi-passphrase-file", metavar="FILE", help="Its first line is the passphrase.")
]
WifiOpenOption = Annotated[bool, typer.Option("--wifi-open", help="The network has no passphrase.")]
CountryOption = Annotated[
    str, typer.Option("--wifi-country", metavar="XX", help="Whose rules the radio keeps, such as DE.")
]
PrefixOption = Annotated[
    str, typer.Option("--hostname-prefix", metavar="P", help="Boards are called P-SERIAL, and so are devices.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")]


def read_wifi(ssid: str | None, file: Path | None, is_open: bool, country: str) -> Wifi | None:
    """Return the way into the network. Raises SettingRefused."""
    if ssid is None:
        return None
    return derive(ssid, None if is_open else _passphrase(ssid, file), country)


def _passphrase(ssid: str, file: Path | None) -> str:
    if file is not None:
        return file.read_text().split("\n", 1)[0]
    if given := os.environ.get(NETWORK_VARIABLE):
        return given
    if not sys.stdin.isatty():
        raise SettingRefused(
            f"no passphrase for {ssid}: give --wifi-passphrase-file or ${NETWORK_VARIABLE}, or --wifi-open"
        )
    return str(typer.prompt(f"passphrase of {ssid}", hide_input=True, err=True))


def find_claim(file: Path | None, fleet: Path | None, make: bool = True) -> Claim | None:
    """Return the claim for a card: the given one, or a new one of the fleet. Raises SettingRefused, FleetError."""
    claim = read_claim(file) if file else None
    if claim:
        must_be_valid(claim, time.time())
    if fleet is None:
        return claim
    with open_fleet(fleet) as opened:
        if claim:
            known = {each.claim_id: each.state for each in opened.enrolment.claims()}
            if known.get(claim.claim_id) != "open":
                state = known.get(claim.claim_id, "none of this fleet's")
                raise SettingRefused(f"{file}: the claim {claim.claim_id} is {state}: take or make another")
            return claim
        if not make:
            return None
        opened.enrolment.found(False)
        (made,) = opened.enrolment.create_claims(1, ClaimTerms(_CLAIM_LIFE_S, {}))
        return made


def find_package(file: Path | None, architecture: str) -> Package:
    """Return the agent's package, built where none is given. Raises FirmwareError."""
    if file is not None:
        return read_package(file)
    with tempfile.TemporaryDirectory(prefix="autoglm-edge-flash-") as folder:
        err.print(f"building the agent's package for {architecture}; give --package to use one that is there")
        return read_package(build_package(architecture, Path(folder)))
