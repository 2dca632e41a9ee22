"""The ledger of commands: every answer is kept until it is acknowledged, and long enough to recognise a repetition.

One file, committed on each change, bounded to `KEPT` commands: of those that are answered the oldest go first.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

from autoglm_edge_protocol.commands import Answer
from autoglm_edge_protocol.documents import Document, Part, parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import ProtocolError

log = logging.getLogger(__name__)

KEPT = 128
_FILE_BYTES = 16 * 1024 * 1024
"""More than `KEPT` of the longest answers."""


class _Entry(Part):
    answer: Answer
    acknowledged: bool = False


class _Ledger(Document):
    kind: ClassVar[str] = "command ledger"

    entries: tuple[_Entry, ...] = ()


class Ledger:
    """The answers given so far. That an answer was sent is known even when the disk does not take it."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._entries: dict[str, _Entry] = {}
        try:
            read = parse(_Ledger, path.read_bytes(), _FILE_BYTES)
        except (FileNotFoundError, ProtocolError):
            return
        self._entries = {entry.answer.command_id: entry for entry in read.entries}

    def find(self, command_id: str) -> Answer | None:
        """Return the answer that this command was given already."""
        entry = self._entries.get(command_id)
        return entry.answer if entry else None

    def add(self, answer: Answer) -> None:
        """Keep an answer, durably, before it is sent for the first time. Raises OSError; it is then not kept."""
        entries = _newest({**self._entries, answer.command_id: _Entry(answer=answer)})
        self._commit(entries)
        self._entries = entries

    def send_again(self, command_id: str) -> None:
        """Mark an answer as unsent: the command was delivered again, so the fleet may not have it."""
        self._mark(command_id, acknowledged=False)

    def acknowledge(self, command_id: str) -> None:
        """Note that the broker has the answer."""
        self._mark(command_id, acknowledged=True)

    def unsent(self) -> list[Answer]:
        """Return the answers that are still to be sent, oldest first."""
        return [entry.answer for entry in self._entries.values() if not entry.acknowledged]

    def _mark(self, command_id: str, *, acknowledged: bool) -> None:
        entry = self._entries.get(command_id)
        if entry is not None and entry.acknowledged != acknowledged:
            self._entries[command_id] = entry.model_copy(update={"acknowledged": acknowledged})
            try:
                self._commit(self._entries)
            except OSError as error:
                # The worst that follows is that the answer is sent once more after a restart.
                log.warning("it could not be kept that a command is answered: %s", error)

    def _commit(self, entries: dict[str, _Entry]) -> None:
        self._disk.commit(self._path, _Ledger(entries=tuple(entries.values())).to_bytes())


def _newest(entries: dict[str, _Entry]) -> dict[str, _Entry]:
    surplus = max(0, len(entries) - KEPT)
    by_worth = sorted(entries, key=lambda command_id: not entries[command_id].acknowledged)  # stable: oldest first
    dropped = set(by_worth[:surplus])
    return {command_id: entry for command_id, entry in entries.items() if command_id not in dropped}
