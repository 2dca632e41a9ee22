"""The slots: which installed bundle is current, which is the last known good, which is being staged.

One small file holds all three, so that every move between them is a single atomic commit. Pure; `store` does the I/O.
"""

from __future__ import annotations

from typing import ClassVar

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

    def stage(self, installed: Installed) -> Slots:
        """Put a bundle into the staging slot."""
        return self.model_copy(update={"staging": installed})

    def unstage(self) -> Slots:
        """Empty the staging slot."""
        return self.model_copy(update={"staging": None})

    def activate(self) -> Slots:
        """Make the staged bundle current and the current one the last known good."""
        if self.staging is None:
            raise ValueError("nothing is staged")
        if self.current == self.staging:
            return self.unstage()
        return self.model_copy(update={"current": self.staging, "previous": self.current, "staging": None})

    def clear(self) -> Slots:
        """Run nothing, and forget what ran before."""
        return Slots(last_rollback=self.last_rollback)

    def roll_back(self, command_id: str | None = None) -> Slots:
        """Go back to the last known good bundle."""
        if self.previous is None:
            raise ValueError("there is no previous bundle")
        return self.model_copy(update={"current": self.previous, "previous": None, "last_rollback": command_id})

    def manifests(self) -> set[str]:
        """Return the manifest digests of all bundles in slots."""
        used = (self.current, self.previous, self.staging)
        return {installed.bundle.manifest_sha256 for installed in used if installed is not None}
