"""What the fleet's commands have in common: finding the fleet, its passphrases, and the options for both."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from autoglm_edge_fleet.config import ENVIRONMENT, find_fleet
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.passphrases import PASSPHRASE_VARIABLE, PIN_VARIABLE, Passphrases

FleetOption = Annotated[
    Path | None, typer.Option("--fleet", help=f"Folder of the fleet; else ${ENVIRONMENT}, else the current folder.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for scripts.")]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help=f"File whose first line opens the keys; else ${PASSPHRASE_VARIABLE}, else you are asked.",
    ),
]
PinOption = Annotated[
    Path | None,
    typer.Option(
        "--pin-file",
        help=f"File whose first line opens the module or token of hsm: and tkey: keys; else ${PIN_VARIABLE}, else you "
        "are asked.",
    ),
]
PlainOption = Annotated[
    bool, typer.Option("--unencrypted", help="Write new keys without encryption: for tests and demonstrations only.")
]


def find_passphrases(file: Path | None, pin_file: Path | None = None) -> Passphrases:
    """Return where passphrases and PINs come from; who is asked must sit at a terminal. Raises KeyUnavailable."""
    return Passphrases.find(file, _ask if sys.stdin.isatty() else None, pin_file=pin_file)


def _ask(purpose: str, is_new: bool) -> str:
    of_a_module = purpose.startswith(("the pin of ", "the passphrase of "))
    what = purpose if of_a_module else f"passphrase for {purpose}"
    return str(typer.prompt(what, hide_input=True, confirmation_prompt=is_new, err=True))


def open_fleet(fleet: Path | None, passphrase_file: Path | None = None, pin_file: Path | None = None) -> Fleet:
    """Open the fleet that is meant. Raises NoFleetHere, BadSettings, KeyUnavailable, StorageError."""
    return Fleet.open(find_fleet(fleet), find_passphrases(passphrase_file, pin_file))
