"""`autoglm-edge fleet claim ...`: the files with which boards become devices, once each."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from autoglm_edge.console import err, out, print_json
from autoglm_edge.fleet_options import FleetOption, JsonOption, PassphraseOption, PlainOption, open_fleet
from autoglm_edge_fleet.enrolment.claims import ClaimRow, ClaimTerms
from autoglm_edge_fleet.printable import printable
from autoglm_edge_protocol.claims import Claim
from autoglm_edge_protocol.durable import Disk

claim = typer.Typer(
    no_args_is_help=True, help="Let boards become devices: make claims, see which are used, revoke them."
)

_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
_COLOURS = {"used": "green", "waiting": "yellow", "revoked": "red", "expired": "red"}

ExpiresOption = Annotated[str, typer.Option(metavar="TIME", help="For how long it can be used: 90m, 12h, 30d, 8w.")]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Of the device; may be given several times.")
]
ApproveOption = Annotated[
    bool, typer.Option("--approve", help="Each board waits until `fleet devices approve` lets it in.")
]
BrokerOption = Annotated[
    str | None, typer.Option("--broker", metavar="URL", help="Where boards ask; else as fleet.toml says.")
]
DeviceBrokerOption = Annotated[
    str | None,
    typer.Option(
        "--device-broker", metavar="URL", help="Where devices belong afterwards; else as fleet.toml says then."
    ),
]


def duration_s(text: str) -> float:
    """Return seconds. Raises typer.BadParameter."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if not found:
        raise typer.BadParameter(f"{text!r} is no time: write 90m, 12h, 30d or 8w")
    return int(found[1]) * _UNITS_S[found[2]]


def read_tags(pairs: Iterable[str]) -> dict[str, str]:
    """Return tags. Raises typer.BadParameter."""
    tags = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or key in tags:
            raise typer.BadParameter(f"--tag {pair!r}: give KEY=VALUE, each key once")
        tags[key] = value
    return tags


def write_claims(claims: Iterable[Claim], directory: Path) -> list[Path]:
    """Write each claim into a file of its own, which its owner alone may read. Raises OSError."""
    disk = Disk()
    disk.make_directories(directory)
    written = []
    for each in claims:
        path = directory / f"claim-{each.claim_id}.json"
        disk.commit_private(path, each.to_text().encode())
        written.append(path)
    return written


@claim.command()
def create(
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many: each lets one board in.")] = 1,
    expires: ExpiresOption = "30d",
    tag: TagOption = None,
    approve: ApproveOption = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder for the files; else `claims` in the fleet."),
    ] = None,
    broker: BrokerOption = None,
    device_broker: DeviceBrokerOption = None,
    name_prefix: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="What the devices' names begin with; flash can say it, too.")
    ] = None,
    fleet: FleetOption = None,
    passphrase_file: PassphraseOption = None,
    unencrypted: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make claims, one file each. Whoever has such a file can become a device of the fleet, once, until it expires.

    The first call also makes the fleet's authority for certificates, where `fleet init` has not.
    """
    terms = ClaimTerms(duration_s(expires), read_tags(tag or ()), approve)
    with open_fleet(fleet, passphrase_file) as opened:
        opened.enrolment.found(unencrypted)
        claims = opened.enrolment.create_claims(count, terms, broker, device_broker, name_prefix)
        folder = output or opened.directory / "claims"
        paths = write_claims(claims, folder)
    if as_json:
        print_json(
            [
                {"claim_id": c.claim_id, "file": str(path), "expires_at": c.expires_at}
                for c, path in zip(claims, paths, strict=True)
            ]
        )
        return
    what = "1 claim" if count == 1 else f"{count} claims"
    out.print(f"{what} in {folder}, for boards that ask at {claims[0].broker_url}", markup=False, soft_wrap=True)
    if claims[0].root is None:
        err.print("this fleet has no keys: its devices will refuse everything until they are told to check nothing")
    out.print(f"on a board: autoglm-edge-agent enrol --claim {paths[0].name}", markup=False, soft_wrap=True)


@claim.command("list")
def list_claims(fleet: FleetOption = None, as_json: JsonOption = False) -> None:
    """List the claims: open, waiting for approval, used and by which board, expired, revoked."""
    with open_fleet(fleet) as opened:
        claims = opened.enrolment.claims()
    if as_json:
        print_json([asdict(each) for each in claims])
        return
    table = Table("claim", "state", "device", "board", "expires", "tags", box=SIMPLE_HEAD, pad_edge=False)
    for each in claims:
        table.add_row(
            each.claim_id,
            Text(each.state, _COLOURS.get(each.state, "")),
            each.device or "-",
            Text(printable(each.board or "-", 60)),
            time.strftime("%Y-%m-%d", time.localtime(each.expires_at)),
            " ".join(f"{key}={value}" for key, value in each.tags.items()) or "-",
        )
    out.print(table)
    for line in contests(claims):
        out.print(line, markup=False, soft_wrap=True)


def contests(claims: Iterable[ClaimRow]) -> list[str]:
    """Return a line for each claim that a second board tried to use."""
    return [
        f"claim {each.claim_id} of {each.device} was used by a second board, {each.contested_board}: it was refused"
        for each in claims
        if each.contested_board
    ]


@claim.command()
def revoke(
    claim_id: Annotated[str, typer.Argument(metavar="CLAIM", help="Id of the claim.")],
    fleet: FleetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a claim worthless. A device that it has made already stays: `fleet devices revoke` is for that."""
    with open_fleet(fleet) as opened:
        row = opened.enrolment.revoke_claim(claim_id)
    if as_json:
        print_json(asdict(row))
    elif row.state == "used":
        out.print(f"claim {claim_id} was used already: {row.device} stays a device; see fleet devices revoke")
    else:
        out.print(f"claim {claim_id} is revoked")
