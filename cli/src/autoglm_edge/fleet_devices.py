"""`autoglm-edge fleet devices ...`: who belongs to the fleet, and who no longer does."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from autoglm_edge.console import EXIT_PARTIAL, err, out, print_json
from autoglm_edge.fleet_claims import (
    ApproveOption,
    BrokerOption,
    DeviceBrokerOption,
    ExpiresOption,
    contests,
    duration_s,
    write_claims,
)
from autoglm_edge.fleet_json import device_json
from autoglm_edge.fleet_options import FleetOption, JsonOption, PassphraseOption, PlainOption, open_fleet
from autoglm_edge.fleet_tables import devices_table, reasons
from autoglm_edge_fleet.enrolment.claims import ClaimTerms

devices = typer.Typer(help="List the devices; approve, revoke and replace them.", invoke_without_command=True)

_SOON_DAYS = 90.0
"""A device that was there since half of its certificate's life was over has renewed it."""

NameArgument = Annotated[str, typer.Argument(help="Name of the device.")]


@devices.callback()
def devices_or_command(context: typer.Context, fleet: FleetOption = None, as_json: JsonOption = False) -> None:
    """List the devices; approve, revoke and replace them. Without a command: list."""
    if context.invoked_subcommand is None:
        list_devices(fleet, as_json)


@devices.command("list")
def list_devices(fleet: FleetOption = None, as_json: JsonOption = False) -> None:
    """List the devices: online or not, what they run, what they are, who waits to be approved."""
    with open_fleet(fleet) as opened:
        status, claims = opened.status(window_s=0), opened.enrolment.claims()
        certificates, tags = opened.enrolment.certificates(), opened.enrolment.tags()
        suspicions = opened.enrolment.suspicions()
    if as_json:
        rows = []
        for each in status:
            certificate = certificates.get(each.device.name)
            more = {
                "tags": tags[each.device.name],
                "certificate": asdict(certificate) | {"pem": None} if certificate else None,
                "suspicion": suspicions.get(each.device.name),
            }
            rows.append(device_json(each) | more)
        print_json(rows)
        return
    out.print(devices_table(status), *reasons(status), sep="\n")
    for name, certificate in certificates.items():
        if certificate.revoked_at is not None:
            out.print(f"{name}: revoked: {certificate.revoked_reason}", markup=False, soft_wrap=True)
        elif (days := (certificate.not_after - time.time()) / 86_400) < _SOON_DAYS:
            state = f"runs out in {days:.0f} days, and was not renewed" if days > 0 else "has run out: enrol it again"
            out.print(f"{name}: its certificate {state}")
    for name, line in suspicions.items():
        out.print(f"{name}: {line}", markup=False, soft_wrap=True)
    for claim in claims:
        if claim.state == "waiting":
            line = f"{claim.device}: waits for `fleet devices approve {claim.device}` ({claim.board})"
            out.print(line, markup=False, soft_wrap=True)
    for line in contests(claims):
        out.print(line, markup=False, soft_wrap=True)


@devices.command()
def approve(
    name: Annotated[str, typer.Argument(help="Name under which the board waits, or the id of its claim.")],
    fleet: FleetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a board in that waits. `fleet serve` gives it its certificate."""
    with open_fleet(fleet) as opened:
        row = opened.enrolment.approve(name)
    if as_json:
        print_json(asdict(row))
    else:
        out.print(f"{row.device} is approved: {row.board}", markup=False, soft_wrap=True)


@devices.command()
def revoke(
    name: NameArgument,
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "revoked by the owner",
    fleet: FleetOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a device's certificates back, and write anew what the broker reads.

    Exit code 3: the broker was not reloaded; the same command again tries that again.
    """
    with open_fleet(fleet, passphrase_file) as opened:
        count = opened.enrolment.revoke_device(name, reason)
        updated = opened.enrolment.broker.refresh()
        problem = opened.enrolment.broker.reload()
        settings = opened.enrolment.broker.settings()
    reloads = settings is not None and bool(settings.reload)
    if as_json:
        files = [str(path) for path in updated]
        print_json({"device": name, "certificates": count, "broker_files": files, "problem": problem})
    else:
        what = f"{count} certificate{'' if count == 1 else 's'}" if count else "it was before"
        out.print(f"{name} is revoked: {what}")
        if not updated:
            out.print("no broker is told of it: `autoglm-edge fleet broker config` writes what brokers read")
        elif not reloads:
            out.print(f"written anew: {updated[0].parent}; let the broker read it", markup=False, soft_wrap=True)
    if problem is not None:
        err.print(problem, markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_PARTIAL)


@devices.command("replace")
def replace_board(
    name: NameArgument,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder for the claim; else `claims` in the fleet."),
    ] = None,
    expires: ExpiresOption = "30d",
    approved: ApproveOption = False,
    broker: BrokerOption = None,
    device_broker: DeviceBrokerOption = None,
    fleet: FleetOption = None,
    passphrase_file: PassphraseOption = None,
    unencrypted: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the claim for another board in the place of this one: same name, new key.

    The old certificate is revoked when the new board is enrolled, and not before.
    """
    with open_fleet(fleet, passphrase_file) as opened:
        opened.enrolment.found(unencrypted)
        terms = ClaimTerms(duration_s(expires), {}, approved)
        claim = opened.enrolment.replace_device(name, terms, broker, device_broker)
        path = write_claims([claim], output or opened.directory / "claims")[0]
    if as_json:
        print_json({"claim_id": claim.claim_id, "file": str(path), "expires_at": claim.expires_at})
    else:
        out.print(f"{path} lets one board become {name}", markup=False, soft_wrap=True)
