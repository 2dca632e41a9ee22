"""The ledger of commands: each is noted before it is carried out, and its answer kept until it is acknowledged.

One file, committed on each change, bounded to `KEPT` answers: of those that are acknowledged the oldest go first. The
ids of as many that are gone are kept, so that a repetition is recognised in whatever order answers are acknowledged.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

from autoglm_edge_agent.storage.lost_bytes import read_kept
from autoglm_edge_protocol.commands import Answer, Command
from autoglm_edge_protocol.documents import Document, Part, parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import MalformedDocument, UnsupportedSchema

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
    begun: tuple[Command, ...] = ()
    """Commands that are being carried out. Not known to the first release, which left their repetition to the fleet."""
    gone: tuple[str, ...] = ()
    """Ids of the last commands that were carried out and whose answers are no longer here."""


class Ledger:
    """The answers given so far. That an answer was sent is known even when the disk does not take it."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        read = self._read()
        self._entries = {entry.answer.command_id: entry for entry in read.entries}
        self._begun = {command.command_id: command for command in read.begun}
        self._gone = read.gone

    def _read(self) -> _Ledger:
        try:
            return parse(_Ledger, read_kept(self._path), _FILE_BYTES)
        except (FileNotFoundError, MalformedDocument):
            return _Ledger()
        except UnsupportedSchema as error:
            # What a newer release has written is not ours to overwrite; commands must be answered all the same.
            aside = self._path.with_name(f"{self._path.stem}-newer.json")
            log.warning("%s; it is kept as %s, and commands that come again are carried out again", error, aside.name)
            self._disk.replace(self._path, aside)
            return _Ledger()

    def find(self, command_id: str) -> Answer | None:
        """Return the answer that this command was given already."""
        entry = self._entries.get(command_id)
        return entry.answer if entry else None

    def is_gone(self, command_id: str) -> bool:
        """Whether this command was carried out and its answer is no longer here."""
        return command_id in self._gone

    def begin(self, command: Command) -> None:
        """Note, durably, that a command is about to be carried out. Raises OSError; it is then not noted."""
        begun = {**self._begun, command.command_id: command}
        self._commit(self._entries, begun, self._gone)
        self._begun = begun

    def begun(self) -> list[Command]:
        """Return the commands that were begun and have no answer yet, oldest first."""
        return list(self._begun.values())

    def add(self, answer: Answer) -> None:
        """Keep an answer, durably, before it is sent for the first time. Raises OSError; it is then not kept."""
        entries = _newest({**self._entries, answer.command_id: _Entry(answer=answer)})
        gone = (*self._gone, *(command_id for command_id in self._entries if command_id not in entries))[-KEPT:]
        begun = {command_id: each for command_id, each in self._begun.items() if command_id != answer.command_id}
        self._commit(entries, begun, gone)
        self._entries, self._begun, self._gone = entries, begun, gone

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
                self._commit(self._entries, self._begun, self._gone)
            except OSError as error:
                # The worst that follows is that the answer is sent once more after a restart.
                log.warning("it could not be kept that a command is answered: %s", error)

    def _commit(self, entries: dict[str, _Entry], begun: dict[str, Command], gone: tuple[str, ...]) -> None:
        ledger = _Ledger(entries=tuple(entries.values()), begun=tuple(begun.values()), gone=gone)
        self._disk.commit(self._path, ledger.to_bytes())


def _newest(entries: dict[str, _Entry]) -> dict[str, _Entry]:
    surplus = max(0, len(entries) - KEPT)
    by_worth = sorted(entries, key=lambda command_id: not entries[command_id].acknowledged)  # stable: oldest first
    dropped = set(by_worth[:surplus])
    return {command_id: entry for command_id, entry in entries.items() if command_id not in dropped}
