"""Commands to devices: kept until they are answered, sent until then or until they expire."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from autoglm_edge_fleet.audit import note
from autoglm_edge_fleet.database import Database, Row
from autoglm_edge_fleet.devices import device_names
from autoglm_edge_fleet.errors import RefusedReport, UnknownCommand, UnknownDevice
from autoglm_edge_fleet.limits import FLEET_LIMITS
from autoglm_edge_fleet.trust.lifetimes import COMMAND_S
from autoglm_edge_protocol.commands import Answer, Command
from autoglm_edge_protocol.documents import first_problem, parse
from autoglm_edge_protocol.errors import MalformedDocument
from autoglm_edge_protocol.limits import LIMITS

_ROOM_BYTES = 256  # for what the director adds


@dataclass(frozen=True)
class QueuedCommand:
    """A command and its answer, once it has one."""

    command: Command
    issued_at: float
    answer: Answer | None

    def is_expired(self, now: float) -> bool:
        """Whether it is too late for the device to act on it."""
        return self.command.expires_at is not None and now > self.command.expires_at


@dataclass(frozen=True)
class Pending:
    """An unanswered command, and whether its device can hear it."""

    command: Command
    online: bool
    session: int


@dataclass(frozen=True)
class Sent:
    """When a command was last given to the broker: on which of our connections, in which session of the device."""

    connection: int
    session: int
    at: float


def is_due(pending: Pending, sent: Sent | None, connection: int, now: float) -> bool:
    """Decide whether an unanswered command goes to the broker now.

    It goes once a connection of ours and once a session of the device, as a broker may lose what it had queued, and
    again from time to time while the device is online. Devices act once on each id.
    """
    if pending.command.expires_at is not None and now > pending.command.expires_at:
        return False
    if sent is None or sent.connection != connection or sent.session != pending.session:
        return True
    return pending.online and now - sent.at >= FLEET_LIMITS.resend_command_s


def queue_command(
    database: Database, device: str, name: str, arguments: Mapping[str, str], expires_in_s: float | None
) -> Command:
    """Queue a command. Raises UnknownDevice, MalformedDocument, StorageError."""
    known = device_names(database)
    if device not in known:
        raise UnknownDevice(device, known)
    now = time.time()
    try:
        command = Command(
            command_id=secrets.token_hex(8),
            device=device,
            name=name,
            arguments=dict(arguments),
            expires_at=now + expires_in_s if expires_in_s is not None else None,
        )
    except ValidationError as error:
        raise MalformedDocument(Command.kind, first_problem(error)) from None
    if len(command.to_bytes()) > LIMITS.signed_payload_bytes - _ROOM_BYTES:
        raise MalformedDocument(Command.kind, f"larger than {LIMITS.signed_payload_bytes - _ROOM_BYTES} bytes")
    if expires_in_s is not None and expires_in_s > COMMAND_S:
        raise MalformedDocument(Command.kind, f"no command lives longer than {COMMAND_S / 86_400:.0f} days")
    values = (command.command_id, device, name, json.dumps(command.arguments), now, command.expires_at)
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO commands (command_id, device, name, arguments, issued_at, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            values,
        )
        note(connection, "command", device, command_id=command.command_id, name=name)
    return command


def find_command(database: Database, command_id: str) -> QueuedCommand:
    """Return a command. Raises UnknownCommand, StorageError."""
    rows = database.read("SELECT * FROM commands WHERE command_id = ?", (command_id,))
    if not rows:
        raise UnknownCommand(f"no command {command_id!r} was ever queued")
    row = rows[0]
    answer = parse(Answer, row["answer"].encode(), 2 * LIMITS.control_bytes) if row["answer"] else None
    return QueuedCommand(_command(row), row["issued_at"], answer)


def pending_commands(database: Database) -> tuple[Pending, ...]:
    """Return the commands without an answer that have not expired, oldest first. Raises StorageError."""
    rows = database.read(
        "SELECT commands.*, online, presence_session FROM commands JOIN devices ON devices.name = device"
        " WHERE answer IS NULL AND (expires_at IS NULL OR expires_at >= ?) ORDER BY issued_at",
        (time.time(),),
    )
    return tuple(Pending(_command(row), bool(row["online"]), row["presence_session"]) for row in rows)


def take_answer(database: Database, answer: Answer) -> QueuedCommand | None:
    """Keep the answer; returns its command, None when it had one already: the first is final.

    Raises RefusedReport when it answers nothing that was asked of this device, StorageError.
    """
    try:
        queued = find_command(database, answer.command_id)
    except UnknownCommand:
        raise RefusedReport(f"an answer to a command that was never sent, {answer.command_id}") from None
    if queued.command.device != answer.device:
        raise RefusedReport(f"an answer to a command for another device, {answer.command_id}")
    if queued.answer is not None:
        return None
    with database.transaction() as connection:
        connection.execute(
            "UPDATE commands SET answer = ?, answered_at = ? WHERE command_id = ? AND answer IS NULL",
            (answer.to_bytes().decode(), time.time(), answer.command_id),
        )
    return QueuedCommand(queued.command, queued.issued_at, answer)


def _command(row: Row) -> Command:
    return Command(
        command_id=row["command_id"],
        device=row["device"],
        name=row["name"],
        arguments=json.loads(row["arguments"]),
        expires_at=row["expires_at"],
    )
