"""Where passphrases and PINs come from: the environment, a file, or somebody at the keyboard. Nothing is kept on disk.

A PIN opens a module or token, which locks itself after a few wrong ones: the passphrase of files is never tried as one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from autoglm_edge_fleet.errors import KeyUnavailable

PASSPHRASE_VARIABLE = "AUTOGLM_EDGE_KEY_PASSPHRASE"  # noqa: S105  the name, not the secret
PIN_VARIABLE = "AUTOGLM_EDGE_KEY_PIN"
"""Of the module or token."""
SHORTEST = 8
Ask = Callable[[str, bool], str]
"""(what for, whether it is a new one, to be typed twice) -> the passphrase."""


class Passphrases:
    """Gives the passphrase for each key: one for all when it was given, else asked for once for each purpose."""

    def __init__(self, given: str | None = None, ask: Ask | None = None, pin: str | None = None) -> None:
        self._given = given
        self._pin = pin
        self._ask = ask
        self._asked: dict[str, str] = {}

    @classmethod
    def find(
        cls,
        file: Path | None = None,
        ask: Ask | None = None,
        environment: Mapping[str, str] = os.environ,
        pin_file: Path | None = None,
    ) -> Passphrases:
        """Take the passphrase of a file (its first line), else of $AUTOGLM_EDGE_KEY_PASSPHRASE, else ask for it.

        The PIN of a module or token in the same way of `pin_file`, else of $AUTOGLM_EDGE_KEY_PIN.

        Raises KeyUnavailable when a file cannot be read.
        """
        given = _first_line(file, "passphrase") if file else environment.get(PASSPHRASE_VARIABLE)
        pin = _first_line(pin_file, "PIN") if pin_file else environment.get(PIN_VARIABLE)
        return cls(given or None, ask, pin or None)

    def pin(self, purpose: str) -> str | None:
        """Return what opens a module or token, None when there is no way to learn it."""
        return self._pin or self._answer(purpose, False)

    def get(self, purpose: str) -> str | None:
        """Return the passphrase for a purpose, None when there is no way to learn it."""
        return self._given or self._answer(purpose, False)

    def new(self, purpose: str) -> str:
        """Return the passphrase for a key that is being made. Raises KeyUnavailable."""
        passphrase = self._given or self._answer(purpose, True)
        if passphrase is None:
            raise KeyUnavailable(
                f"no passphrase for {purpose}: set {PASSPHRASE_VARIABLE}, name a file with --passphrase-file, "
                "or say --unencrypted"
            )
        if len(passphrase) < SHORTEST:
            raise KeyUnavailable(
                f"the passphrase for {purpose} has fewer than {SHORTEST} characters: take a longer one"
            )
        return passphrase

    def keep(self, purpose: str, passphrase: str) -> None:
        """Remember a passphrase for a purpose, so that it is not asked for again."""
        self._asked[purpose] = passphrase

    def _answer(self, purpose: str, is_new: bool) -> str | None:
        if self._ask is None:
            return None
        if purpose not in self._asked:
            self._asked[purpose] = self._ask(purpose, is_new)
        return self._asked[purpose]


def _first_line(file: Path, what: str) -> str:
    try:
        line = file.read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnavailable(f"the {what} file {file} cannot be read: {error}") from None
    if not line:
        raise KeyUnavailable(f"the {what} file {file} is empty: write the {what} into its first line")
    return line
