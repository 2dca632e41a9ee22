"""What a device remembers so that nobody can take it back: generations, versions and times that never shrink. Pure."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import BundleReference, DesiredState, Reason
from autoglm_edge_protocol.documents import Document, Part
from autoglm_edge_protocol.versions import is_downgrade

COMMANDS_KEPT = 128
"""As many as the ledger keeps answers of."""


class SeenCommand(Part):
    """A command that was let in."""

    command_id: str
    signed_at: float
    """Of the latest of its copies."""


class Memory(Document):
    """`trust/memory.json`. Frozen: each change gives a new one."""

    kind: ClassVar[str] = "trust memory"

    provisioned_sha256: str | None = None
    """Of the root that the device was given: with another one metadata begins anew, while the floors stay."""
    generation: int = Field(default=0, ge=0)
    signed_at: float = 0.0
    """Of the newest desired state that was accepted."""
    accepted_sha256: str | None = None
    """Of the message that carried it."""
    time_floor: float = 0.0
    """Unix time in seconds before which it cannot be."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Model -> the highest version of it that was ever confirmed here."""
    override: Reason | None = None
    """The last time that a version floor was gone below, by the director's permission."""
    commands: tuple[SeenCommand, ...] = ()
    """The last commands that were let in, in the order in which they came."""
    commands_floor: float = 0.0
    """The latest signature of a command that is no longer among them: an unknown one that is not later is a replay."""

    def with_desired(self, desired: DesiredState, message_sha256: str, latest: float) -> Memory:
        """Return the memory after a desired state was accepted; `latest` bounds how far its time is believed."""
        signed_at = desired.signed_at or 0.0
        newer = desired.generation > self.generation
        bundle = desired.bundle
        below = bundle is not None and is_downgrade(bundle.version, self.versions.get(bundle.name, bundle.version))
        permitted = f"generation {desired.generation}, {bundle.id if bundle else None}: {desired.downgrade_reason}"
        return self.model_copy(
            update={
                "generation": max(self.generation, desired.generation),
                "signed_at": signed_at if newer else max(self.signed_at, signed_at),
                "accepted_sha256": message_sha256,
                "override": Reason(code="downgrade-allowed", message=permitted) if below else self.override,
                "time_floor": max(self.time_floor, min(signed_at, latest)),
            }
        )

    def with_command(self, command: Command, latest: float) -> Memory:
        """Return the memory after a command was let in."""
        signed_at = command.signed_at or 0.0
        known = {each.command_id: each.signed_at for each in self.commands}
        # One that is sent again is signed again: the floor must end up above the latest of its copies.
        known[command.command_id] = max(signed_at, known.get(command.command_id, 0.0))
        commands = tuple(SeenCommand(command_id=command_id, signed_at=at) for command_id, at in known.items())
        forgotten, kept = commands[:-COMMANDS_KEPT], commands[-COMMANDS_KEPT:]
        return self.model_copy(
            update={
                "commands": kept,
                "commands_floor": max([self.commands_floor, *(each.signed_at for each in forgotten)]),
                "time_floor": max(self.time_floor, min(signed_at, latest)),
            }
        )

    def with_confirmed(self, bundle: BundleReference) -> Memory:
        """Return the memory after a bundle was confirmed; the same object when that is nothing new."""
        known = self.versions.get(bundle.name)
        if known is not None and (known == bundle.version or is_downgrade(bundle.version, known)):
            return self
        return self.model_copy(update={"versions": {**self.versions, bundle.name: bundle.version}})
