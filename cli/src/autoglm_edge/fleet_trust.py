"""`autoglm-edge fleet keys|repository|audit`: who may sign, what is signed until when, and who did what."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from autoglm_edge.console import EXIT_FAILED, EXIT_PARTIAL, err, out, print_json
from autoglm_edge.fleet_options import (
    FleetOption,
    JsonOption,
    PassphraseOption,
    PinOption,
    PlainOption,
    find_passphrases,
    open_fleet,
)
from autoglm_edge_fleet.keys import KeyRing
from autoglm_edge_fleet.printable import printable
from autoglm_edge_fleet.trust.custody import RootChange, sign_root
from autoglm_edge_fleet.trust.verify import Verification

keys = typer.Typer(no_args_is_help=True, help="Who may sign: list keys, replace them, sign a new root.")
repository = typer.Typer(no_args_is_help=True, help="The signed metadata of the repository: renew it, verify it.")

SignWithOption = Annotated[
    list[str] | None,
    typer.Option("--sign-with", metavar="KEY", help="A root key: its file, or a URI. May be given several times."),
]


@keys.command("list")
def list_keys(fleet: FleetOption = None, as_json: JsonOption = False) -> None:
    """List every key: whose it is, how many of them must sign, and where its private half is."""
    with open_fleet(fleet) as opened:
        listed = opened.trust.list_keys()
    if as_json:
        print_json([asdict(key) for key in listed])
        return
    table = Table("role", "key", "must sign", "where", box=SIMPLE_HEAD, pad_edge=False)
    for key in listed:
        table.add_row(key.role, key.keyid[:12], str(key.threshold), Text(key.place))
    out.print(table)


@keys.command()
def rotate(
    role: Annotated[str, typer.Argument(help="root, targets, snapshot, timestamp, director, or model-NAME.")],
    sign_with: SignWithOption = None,
    new_key: Annotated[
        str | None, typer.Option(metavar="URI", help="Take this key, which exists; else one is made.")
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="root only: beginning of the id of a key to replace; else all."),
    ] = None,
    root_keys: Annotated[Path | None, typer.Option(help="root only: folder for the new keys.")] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="root only: replace no key, but let it last another year.")
    ] = False,
    fleet: FleetOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    unencrypted: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Replace a role's key. The old key is worth nothing from then on.

    All but a model's key stand in the root, so a new root is begun, which enough holders of root keys must sign: here
    with --sign-with, or elsewhere with `fleet keys sign`. Until then nothing changes. Exit code 3: more must sign.
    """
    with open_fleet(fleet, passphrase_file, pin_file) as opened:
        trust, signers = opened.trust, tuple(sign_with or ())
        if role != "root" and (replace or root_keys or renew):
            raise typer.BadParameter("--replace, --root-keys and --renew are for root")
        if role == "root" and new_key:
            raise typer.BadParameter("root keys are made: give --root-keys DIR")
        if role != "root":
            change = trust.rotate(role, new_key, unencrypted, signers)
        elif renew:
            change = trust.renew_root(signers)
        else:
            folder = root_keys or opened.directory / "root-keys"
            change = trust.rotate_root(tuple(replace or ()), folder, unencrypted, signers)
    _print_change(change, as_json)


@keys.command()
def sign(
    file: Annotated[
        Path | None, typer.Argument(help="A copy of the waiting root, on a holder's machine; else that of the fleet.")
    ] = None,
    sign_with: SignWithOption = None,
    take: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Add the signatures of a copy that was signed elsewhere.")
    ] = None,
    fleet: FleetOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the root that waits. With FILE any machine will do, no fleet is needed; then bring the file back for --take.

    Without FILE the root is installed as soon as enough have signed. Exit code 3: signatures are lacking.
    """
    if file is not None:
        ring = KeyRing(file.parent, find_passphrases(passphrase_file, pin_file))
        signed = sign_root(file, sign_with or (), ring)
        if as_json:
            print_json({"file": str(file), "signed_with": signed})
        else:
            out.print(f"{file} signed with {', '.join(each[:12] for each in signed) or 'nothing'}", markup=False)
        return
    with open_fleet(fleet, passphrase_file, pin_file) as opened:
        change = opened.trust.sign(tuple(sign_with or ()), tuple(take or ()))
    _print_change(change, as_json)


def _print_change(change: RootChange, as_json: bool) -> None:
    waits = change.pending is not None
    if as_json:
        values = {"root_version": change.version, "missing": change.missing}
        print_json(values | {"pending": str(change.pending) if waits else None})
    elif waits:
        out.print(f"root {change.version} waits in {change.pending} for:", markup=False, soft_wrap=True)
        for line in change.missing:
            out.print(f"  {line}", markup=False, soft_wrap=True)
        out.print("sign with: autoglm-edge fleet keys sign --sign-with KEY, here or with a copy of the file")
    else:
        out.print(f"root {change.version} is installed" if change.version else "signed again")
        for line in change.missing:
            err.print(line, markup=False, soft_wrap=True)
    if waits:
        raise typer.Exit(EXIT_PARTIAL)


@repository.command()
def refresh(
    force: Annotated[bool, typer.Option("--force", help="Sign timestamp and snapshot again although not due.")] = False,
    fleet: FleetOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign again what expires soon, as `fleet serve` does by itself. Exit code 3: a key is not at hand."""
    with open_fleet(fleet, passphrase_file, pin_file) as opened:
        done = opened.trust.refresh(force)
    if as_json:
        print_json(asdict(done))
    else:
        out.print(f"signed again: {', '.join(done.roles)}" if done.roles else "nothing was due")
        for problem in done.problems:
            err.print(problem, markup=False, soft_wrap=True)
    if done.problems:
        raise typer.Exit(EXIT_PARTIAL)


@repository.command()
def verify(fleet: FleetOption = None, as_json: JsonOption = False) -> None:
    """Look at the repository as a device does, from the first root on: every signature, every manifest, every expiry.

    Needs no key. Exit code 1 when a device would refuse something.
    """
    with open_fleet(fleet) as opened:
        found = opened.trust.verify()
    if as_json:
        roles = [asdict(role) | {"expires": role.expires.isoformat()} for role in found.roles]
        print_json({"roles": roles, "bundles": found.bundles, "problems": found.problems})
    else:
        _print_verification(found)
    if found.problems:
        raise typer.Exit(EXIT_FAILED)


def _print_verification(found: Verification) -> None:
    table = Table("role", "version", "expires", "", box=SIMPLE_HEAD, pad_edge=False)
    for role in found.roles:
        days = (role.expires.timestamp() - time.time()) / 86_400
        table.add_row(role.role, str(role.version), f"in {days:.0f} days", "to be renewed" if role.is_due else "")
    out.print(table)
    out.print(f"{found.bundles} bundle{'' if found.bundles == 1 else 's'} verified")
    for problem in found.problems:
        out.print(f"a device would refuse: {problem}", markup=False, soft_wrap=True)


def audit(
    newest: Annotated[int | None, typer.Option("-n", "--newest", min=1, help="Only so many, the newest.")] = None,
    fleet: FleetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who did what. Exit code 1 when the log was changed behind the program's back."""
    with open_fleet(fleet) as opened:
        entries, broken = opened.audit(newest), opened.first_broken_entry()
    if as_json:
        print_json({"entries": [asdict(entry) for entry in entries], "first_broken": broken})
    else:
        for entry in entries:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at))
            details = " ".join(f"{key}={value}" for key, value in entry.details.items() if value is not None)
            line = printable(f"{entry.number} {at} {entry.actor} {entry.action} {entry.subject} {details}", 2000)
            out.print(line, markup=False, soft_wrap=True)
    if broken is not None:
        err.print(f"entry {broken} does not continue the one before it: the log was changed")
        raise typer.Exit(EXIT_FAILED)
