"""What is known of a card, as a document without a secret in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PartitionSeen:
    """A partition and whether its file system is sound; `state` is empty where that was not looked at."""

    number: int
    start_bytes: int
    size_bytes: int
    file_system: str
    state: str = ""


@dataclass(frozen=True)
class ClaimSeen:
    """A claim that no board has used yet."""

    where: str
    fleet: str
    claim_id: str
    expires_at: float
    expired: bool


@dataclass(frozen=True)
class IdentitySeen:
    """Who the board is, once its claim was used."""

    fleet: str
    device: str
    claim_id: str


@dataclass(frozen=True)
class Bundles:
    """What is in the slots, as `name@version (variant)`."""

    current: str | None = None
    previous: str | None = None
    staging: str | None = None
    unproven: bool = False


@dataclass(frozen=True)
class Examination:
    """All of it."""

    path: str
    size_bytes: int
    scheme: str
    partitions: tuple[PartitionSeen, ...]
    system: str
    architecture: str
    host_name: str
    has_booted: bool
    agent: str
    """The installed version, or the one that waits on the card; empty where there is none."""
    agent_is_installed: bool
    claim: ClaimSeen | None
    identity: IdentitySeen | None
    bundles: Bundles | None
    problems: tuple[str, ...]

    @property
    def claim_state(self) -> str:
        """`used`, `waiting`, `expired` or `none`."""
        if self.identity:
            return "used"
        if self.claim is None:
            return "none"
        return "expired" if self.claim.expired else "waiting"

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {**asdict(self), "claim_state": self.claim_state}
