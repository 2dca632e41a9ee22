"""The slots: which installed bundle is current, which is the last known good, which is being staged.

One small file holds all three, so that every move between them is a single atomic commit. Pure; `store` does the I/O.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from pydantic import ValidationError

from autoglm_edge_protocol.deployment import Installed
from autoglm_edge_protocol.documents import Document


class Slots(Document):
    """`slots.json`."""

    kind: ClassVar[str] = "slots"

    current: Installed | None = None
    previous: Installed | None = None
    staging: Installed | None = None
    last_rollback: str | None = None
    """The id of the command that rolled back last, so that the same command, delivered twice, acts once."""
    unproven: bool = False
    """Whether the current bundle has yet to pass its probation."""

    def stage(self, installed: Installed) -> Slots:
        """Put a bundle into the staging slot."""
        return self.model_copy(update={"staging": installed})

    def unstage(self) -> Slots:
        """Empty the staging slot."""
        return self.model_copy(update={"staging": None})

    def activate(self) -> Slots:
        """Make the staged bundle current, unproven, and the current one the last known good.

        One that is unproven itself does not take the place of a last known good one.
        """
        if self.staging is None:
            raise ValueError("nothing is staged")
        if self.current == self.staging:
            return self.unstage()
        good = (self.unproven and self.previous) or self.current
        return self.model_copy(update={"current": self.staging, "previous": good, "staging": None, "unproven": True})

    def prove(self) -> Slots:
        """Note that the current bundle has passed its probation."""
        return self.model_copy(update={"unproven": False})

    def clear(self) -> Slots:
        """Run nothing, and forget what ran before."""
        return Slots(last_rollback=self.last_rollback)

    def roll_back(self, command_id: str | None = None) -> Slots:
        """Go back to the last known good bundle, by command or, with None, by the device's own decision."""
        if self.previous is None:
            raise ValueError("there is no previous bundle")
        last = command_id or self.last_rollback
        back = {"current": self.previous, "previous": None, "unproven": False, "last_rollback": last}
        return self.model_copy(update=back)

    def manifests(self) -> set[str]:
        """Return the manifest digests of all bundles in slots."""
        return {installed.bundle.manifest_sha256 for installed in self.installed()}

    def installed(self) -> tuple[Installed, ...]:
        """Return the bundles in slots, the current one first."""
        used = (self.current, self.previous, self.staging)
        return tuple(installed for installed in used if installed is not None)


def salvage(data: bytes) -> Slots:
    """Return what can be read of slots that a newer release has written: enough to serve, not to change them."""
    try:
        value: Any = json.loads(data)
        return Slots(current=_installed(value.get("current")), previous=_installed(value.get("previous")))
    except (ValueError, RecursionError, AttributeError):
        return Slots()


def _installed(value: Any) -> Installed | None:
    try:
        return Installed.model_validate(value)
    except ValidationError:
        return None
