"""Desired state, reported state and presence: how a device learns what to run and tells what it does run."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from autoglm_edge_protocol.digests import Sha256
from autoglm_edge_protocol.documents import LARGEST_INTEGER, Count, Document, Part
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.names import BoardId, BundleId, BundleName, BundleVersion, DeviceName, FleetName
from autoglm_edge_protocol.probation import ProbationReport, ProbationTerms


class BundleReference(Part):
    """A bundle, pinned to its exact bytes by the digest of its manifest."""

    name: BundleName
    version: BundleVersion
    manifest_sha256: Sha256
    manifest_size_bytes: int = Field(ge=1, le=LIMITS.manifest_bytes)

    @property
    def id(self) -> BundleId:
        """The bundle's `name@version`."""
        return BundleId(name=self.name, version=self.version)


class DesiredState(Document):
    """What one device should run. Retained; the generation only grows, an older one is ignored."""

    kind: ClassVar[str] = "desired state"

    fleet: FleetName
    device: DeviceName
    generation: int = Field(ge=1, le=LARGEST_INTEGER)
    bundle: BundleReference | None
    """None: run no model."""
    variant: str | None = None
    """A variant id; None: the device takes the fastest that fits it."""
    probation: ProbationTerms | None = None
    """What the bundle must keep to after its activation; None: the device's own terms."""
    issued_at: float = 0.0
    """Unix time in seconds at which the owner decided it, for people; no decision rests on it."""
    signed_at: float | None = None
    """Unix time in seconds of the signature: devices without a clock know from it that it is at least so late.
    A renewed signature has a later one, and the same generation. In an envelope never None."""
    expires_at: float | None = None
    """Unix time in seconds after which a device no longer accepts it; what it runs by then it goes on running.
    In an envelope never None."""
    allow_downgrade: bool = False
    """Whether a version below the highest that the device has confirmed of this model may be installed."""
    downgrade_reason: str | None = Field(default=None, min_length=1, max_length=500)
    """Why, in the owner's words; given exactly when a downgrade is allowed."""

    @model_validator(mode="after")
    def _downgrade_has_a_reason(self) -> DesiredState:
        if self.allow_downgrade != (self.downgrade_reason is not None):
            raise ValueError("allow_downgrade and downgrade_reason come together")
        return self


class Reason(Part):
    """Why something was refused or failed: `code` for machines, `message` for people."""

    code: str = Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")
    message: str = Field(max_length=2000)


class Installed(Part):
    """A bundle in a slot."""

    bundle: BundleReference
    variant: str


class DeploymentReport(Part):
    """How far the device is with the generation it works on."""

    generation: Count
    bundle: BundleReference | None
    phase: str
    """A state of the update's transition table (docs/update-states.md), or `confirmed`, or `failed`."""
    fetched_bytes: Count = 0
    """Bytes of this deployment that came over the network."""
    total_bytes: Count = 0
    """Bytes of the files this device needs; those already on disk are not fetched."""
    present_bytes: Count = 0
    """Of these, bytes that were on the device before."""
    probation: ProbationReport | None = None
    """What was seen since the activation; None before it."""
    reason: Reason | None = None


class DeviceFacts(Part):
    """What the device is."""

    agent_version: str
    board: str
    architecture: str
    cores: Count
    memory_bytes: Count
    runtimes: dict[str, str]
    """Installed inference runtimes and their versions."""


class Execution(Part):
    """How the current bundle runs on this device, as was measured when it was installed."""

    runtime: str
    provider: str
    threads: int = Field(ge=1)
    latency_p50_us: float = Field(ge=0)
    latency_p99_us: float = Field(ge=0)
    cpu_us: float = Field(ge=0)
    """Processor time of one run, all threads together."""
    memory_bytes: Count
    """Peak of a process that runs it."""
    placement: dict[str, Count] = Field(default_factory=dict)
    """Nodes of the graph by provider, where the runtime tells: any other than `provider` is a partial fall-back."""


class Acceleration(Part):
    """What came of the ways to run the current bundle that were tried."""

    used: Execution | None = None
    """None: none of them could be used, and the bundle runs as is usual."""
    disqualified: tuple[Reason, ...] = Field(default=(), max_length=32)
    """Ways that crashed, hung, fell back or disagreed with the golden set (`candidate-disqualified`)."""


class TrustReport(Part):
    """What a device knows of the repository's trust, and what it has turned away."""

    mode: Literal["signed", "insecure", "no-root"]
    """`no-root`: it was given no root metadata and refuses everything. `insecure`: it checks no signature."""
    root_version: Count = 0
    timestamp_version: Count = 0
    time_floor: float = 0.0
    """Unix time in seconds before which it cannot be: the newest of build time and signed times seen."""
    refusal: Reason | None = None
    """Why the last message was refused, when it was: it names no generation, as that is not to be believed."""
    override: Reason | None = None
    """The last time that a signed permission was needed to go below a version floor (`downgrade-allowed`)."""


class ReportedState(Document):
    """What one device does run. Retained; published on every change and on every connection."""

    kind: ClassVar[str] = "reported state"

    device: DeviceName
    session: Count
    sequence: Count
    """Grows with every report of a session, so that a late one is not taken for the newest."""
    at: float
    facts: DeviceFacts
    deployment: DeploymentReport | None = None
    current: Installed | None = None
    previous: Installed | None = None
    serving: bool = False
    endpoints: tuple[str, ...] = ()
    trust: TrustReport | None = None
    acceleration: Acceleration | None = None
    """None: nothing was measured, or nothing is installed."""


class Presence(Document):
    """Whether the device is connected. The offline form is the connection's will.

    Both carry the number of the session, so that the will of a session that is long over is not mistaken for news.
    """

    kind: ClassVar[str] = "presence"

    device: DeviceName
    session: Count
    online: bool
    board: BoardId | None = None
    """The board that speaks, so that one identity on two boards is noticed; None: it cannot be told from others."""
