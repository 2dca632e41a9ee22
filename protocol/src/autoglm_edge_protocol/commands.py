"""Commands to one device, and the one final answer that each of them gets."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from pydantic import Field

from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.documents import Document
from autoglm_edge_protocol.names import DeviceName, FleetName


class Command(Document):
    """A request to do something once. Delivered at least once; the id makes it idempotent."""

    kind: ClassVar[str] = "command"

    command_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    fleet: FleetName | None = None
    """In an envelope never None."""
    device: DeviceName
    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")
    arguments: dict[str, str] = Field(default_factory=dict)
    expires_at: float | None = None
    """Unix time in seconds after which the device answers `expired` instead of acting. In an envelope never None."""
    signed_at: float | None = None
    """Unix time in seconds of the signature. In an envelope never None."""


class Outcome(str, Enum):
    """How a command ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    UNKNOWN = "unknown-command"


class Answer(Document):
    """The final answer to a command."""

    kind: ClassVar[str] = "answer"

    device: DeviceName
    command_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    outcome: Outcome
    result: dict[str, str] = Field(default_factory=dict)
    reason: Reason | None = None
    at: float = 0.0
