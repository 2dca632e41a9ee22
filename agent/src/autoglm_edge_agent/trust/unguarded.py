"""Without a root: everything is turned away, or, where the owner says so, let in without any check.

For development. Whoever can publish on the broker then decides what the device runs.
"""

from __future__ import annotations

from typing import TypeVar

from autoglm_edge_agent.config import DeviceSection
from autoglm_edge_agent.errors import Refusal
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState, Reason, TrustReport
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.signed import SignedMessage

M = TypeVar("M", DesiredState, Command)

NO_ROOT = Reason(
    code="no-trust-root",
    message="this device was given no root metadata ([trust] root), so it takes no desired state and no command",
)


class Closed:
    """Turns everything away."""

    async def desired(self, message: bytes) -> DesiredState:
        """Raise Refusal."""
        raise Refusal(NO_ROOT.code, NO_ROOT.message)

    async def command(self, message: bytes) -> Command:
        """Raise Refusal."""
        raise Refusal(NO_ROOT.code, NO_ROOT.message)

    def was_accepted(self, message: bytes, generation: int) -> bool:
        """Return False."""
        return False

    def report(self) -> TrustReport:
        """Return what the fleet is told."""
        return TrustReport(mode="no-root", refusal=NO_ROOT)


class Insecure:
    """Lets everything in that is addressed to this device, in an envelope or without one."""

    def __init__(self, device: DeviceSection) -> None:
        self._device = device

    async def desired(self, message: bytes) -> DesiredState:
        """Return the desired state of a message. Raises Refusal."""
        desired = _document(DesiredState, message)
        self._check_addressee(desired.fleet, desired.device)
        return desired

    async def command(self, message: bytes) -> Command:
        """Return the command of a message. Raises Refusal."""
        command = _document(Command, message)
        self._check_addressee(command.fleet or self._device.fleet, command.device)
        return command

    def was_accepted(self, message: bytes, generation: int) -> bool:
        """Return False: what is repeated is known by its generation."""
        return False

    def report(self) -> TrustReport:
        """Return what the fleet is told."""
        return TrustReport(mode="insecure")

    def _check_addressee(self, fleet: str, device: str) -> None:
        if (fleet, device) != (self._device.fleet, self._device.name):
            raise Refusal("wrong-device", f"it is for {fleet}/{device}")


def _document(model: type[M], message: bytes) -> M:
    try:
        if b'"envelope"' in message:
            message = parse(SignedMessage, message).envelope.unverified_payload
        return parse(model, message, LIMITS.control_bytes)
    except ProtocolError as error:
        raise Refusal("malformed-message", str(error)) from None
