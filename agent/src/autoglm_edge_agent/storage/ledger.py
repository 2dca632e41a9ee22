"""The ledger of commands: every answer is kept until it is acknowledged, and long enough to recognise a repetition.

One file, committed on each change, bounded to the newest `KEPT` commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from autoglm_edge_protocol.commands import Answer
from autoglm_edge_protocol.documents import Document, Part, parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.limits import LIMITS

KEPT = 128


class _Entry(Part):
    answer: Answer
    acknowledged: bool = False


class _Ledger(Document):
    kind: ClassVar[str] = "command ledger"

    entries: tuple[_Entry, ...] = ()


class Ledger:
    """The answers given so far. Methods that change it raise OSError."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._entries: dict[str, _Entry] = {}
        try:
            read = parse(_Ledger, path.read_bytes(), LIMITS.manifest_bytes)
        except (FileNotFoundError, ProtocolError):
            return
        self._entries = {entry.answer.command_id: entry for entry in read.entries}

    def find(self, command_id: str) -> Answer | None:
        """Return the answer that this command was given already."""
        entry = self._entries.get(command_id)
        return entry.answer if entry else None

    def add(self, answer: Answer) -> None:
        """Keep an answer, durably, before it is sent for the first time."""
        self._commit({**self._entries, answer.command_id: _Entry(answer=answer)})

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
            marked = entry.model_copy(update={"acknowledged": acknowledged})
            self._commit({**self._entries, command_id: marked})

    def _commit(self, entries: dict[str, _Entry]) -> None:
        newest = dict(list(entries.items())[-KEPT:])
        self._disk.commit(self._path, _Ledger(entries=tuple(newest.values())).to_bytes())
        self._entries = newest
