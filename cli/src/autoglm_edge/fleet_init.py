"""`autoglm-edge fleet init`: a fleet with its settings, its keys and the first signed metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoglm_edge.console import out, print_json
from autoglm_edge.fleet_options import JsonOption, PassphraseOption, PinOption, PlainOption, find_passphrases
from autoglm_edge_fleet.config import DEFAULT_BROKER, SETTINGS_FILE
from autoglm_edge_fleet.errors import AlreadyAFleet
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.trust.custody import ROOT_KEYS, ROOT_THRESHOLD, Foundation

_URI = (
    "URI of a key that exists: file:PATH, hsm: (PKCS#11), awskms:, gcpkms:, azurekms:, hv:, tkey:, gnupg:. Else one is "
    "made."
)


def init(
    directory: Annotated[Path, typer.Argument(help="Folder to make the fleet in, or of a fleet that has no keys yet.")],
    name: Annotated[str | None, typer.Option(help="Name of the fleet, in every topic; else the folder's name.")] = None,
    broker: Annotated[
        str, typer.Option(help="mqtt://[USER:PASSWORD@]HOST:PORT, or mqtts:// for TLS.")
    ] = DEFAULT_BROKER,
    root_keys: Annotated[
        Path | None, typer.Option(help="Folder for the root keys, best on a stick; else DIRECTORY/root-keys.")
    ] = None,
    root_count: Annotated[int, typer.Option(help="How many root keys to make.")] = ROOT_KEYS,
    threshold: Annotated[int, typer.Option(help="How many of them must sign together.")] = ROOT_THRESHOLD,
    targets_key: Annotated[str | None, typer.Option(metavar="URI", help=_URI)] = None,
    snapshot_key: Annotated[str | None, typer.Option(metavar="URI", help="The same, for snapshots.")] = None,
    timestamp_key: Annotated[str | None, typer.Option(metavar="URI", help="The same, for timestamps.")] = None,
    director_key: Annotated[
        str | None, typer.Option(metavar="URI", help="The same but gnupg:, for desired states and commands.")
    ] = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    unencrypted: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a fleet: a folder with its settings, its repository of bundles, its database, and its keys.

    Root keys vouch for all others, are needed once a year or when a key is replaced, and belong offline, each with
    another person. The targets key signs bundles, snapshot and timestamp keep the repository fresh, the director's key
    signs what devices are told to run; these the fleet uses day by day.
    """
    uris = {"targets": targets_key, "snapshot": snapshot_key, "timestamp": timestamp_key, "director": director_key}
    wanted = Foundation(
        root_keys or directory / "root-keys",
        root_count,
        threshold,
        {role: uri for role, uri in uris.items() if uri},
        unencrypted,
    )
    passphrases = find_passphrases(passphrase_file, pin_file)
    if not unencrypted:
        passphrases.new(f"the keys in {directory / 'keys'}")  # before anything is made
    if (directory / SETTINGS_FILE).exists():
        opened = Fleet.open(directory, passphrases)
        if opened.trust.is_founded:
            opened.close()
            raise AlreadyAFleet(f"{directory} holds a fleet already")
    else:
        opened = Fleet.init(directory, name, broker, passphrases)
    with opened as fleet:
        made = fleet.trust.found(wanted)
        fleet.enrolment.found(unencrypted)
        _print(fleet, directory, made, wanted, as_json)


def _print(fleet: Fleet, directory: Path, made: tuple[Path, ...], wanted: Foundation, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "name": fleet.config.name,
                "directory": str(directory),
                "root": str(fleet.trust.root_path),
                "root_keys": [str(path) for path in made],
                "threshold": wanted.threshold,
                "encrypted": not wanted.plain,
            }
        )
        return
    files = ", ".join(str(path) for path in made)
    lines = [
        f"fleet {fleet.config.name} made in {directory}, broker {fleet.config.address(directory)}",
        f"to every device: {fleet.trust.root_path}, as /etc/autoglm-edge/root.json",
        f"offline, one to a holder: {files} ({wanted.threshold} of {len(made)} must sign)",
        f"stays here: {directory / 'keys'} and {directory / 'ca'}, what the fleet signs with day by day",
    ]
    if wanted.plain:
        lines.append("NOT encrypted: whoever reads these files can sign as this fleet; never so outside of tests")
    for line in (*lines, f"next: autoglm-edge fleet publish BUNDLE --fleet {directory}"):
        out.print(line, markup=False, soft_wrap=True)
