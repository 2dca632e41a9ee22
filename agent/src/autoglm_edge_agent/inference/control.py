"""What the agent and its workers say to each other: one JSON document a line, over a socket pair.

Imported by both sides, so it loads neither numpy nor a runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from autoglm_edge_agent.inference.options import Plan
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.documents import Part
from autoglm_edge_protocol.histogram import Histogram

BEAT_S = 1.0
"""How often a worker tells that it is alive."""
LINE_BYTES = 256 * 1024
"""The longest line: a beat with a full histogram has about 20 KiB."""


class ShadowOrder(Part):
    """What a worker is started with that runs beside the serving one and answers nobody."""

    bundle: Path
    """Directory of the bundle that serves."""
    variant: str
    min_sqnr_db: float


class AccessOrder(Part):
    """Who may ask over TCP. Without a token and an authority only loopback addresses are listened on."""

    token_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None


class ServingOrder(Part):
    """How a worker serves."""

    max_batch: int = 1
    """How many requests of the lowest class may run together."""
    shared_memory: bool = True
    """Whether HTTP clients may register shared memory by its name."""
    lease_file: Path | None = None
    """A lock that models which share an accelerator take for each run."""
    grpc: str | None = None
    """The address at which gRPC is served, which workers share."""
    access: AccessOrder = AccessOrder()


class WorkerOrder(Part):
    """What a worker is started with."""

    bundle: Path
    """Directory of the installed bundle."""
    variant: str
    trial: bool
    """Whether to replay the golden set before answering that it is ready."""
    plan: Plan
    """How to run the variant."""
    control_fd: int
    parent_pid: int
    """The agent: a worker that has another parent has lost it."""
    listen_fds: tuple[int, ...]
    samples_fd: int
    """The end of the socket pair on which live inputs and their answers go to the shadow, or come from there."""
    serving: ServingOrder = ServingOrder()
    shadow: ShadowOrder | None = None
    """None: an ordinary worker."""


class Beat(Part):
    """Sent every `BEAT_S`: what was answered since the last one."""

    requests: int = 0
    errors: int = 0
    busy_s: float = 0.0
    """How long the run that is going on has taken so far."""
    rss_bytes: int = 0
    latency: Histogram = Field(default_factory=Histogram)
    run: Histogram = Field(default_factory=Histogram)
    """Processor time of the thread that runs the model, run by run: a busy board does not make it longer."""
    compared: int = 0
    differed: float = 0.0
    """Of a shadow: how many answers it compared since the last beat, and how many differed."""


class FromWorker(Part):
    """A message of a worker.

    `ready`: loaded, and agreed with the golden set if that was asked for. `failed`: it could not, `reason` tells why.
    `serving`: accepts connections. `draining`: accepts no more. `beat`: see Beat.
    """

    event: Literal["ready", "failed", "serving", "draining", "beat"]
    reason: Reason | None = None
    beat: Beat | None = None


class ToWorker(Part):
    """A message to a worker.

    `serve`: accept connections. `drain`: finish what was accepted, then end. `sample`: hand a share of the live inputs
    to the shadow.
    """

    order: Literal["serve", "drain", "sample"]
    rate: float = 0.0


def to_line(message: Part) -> bytes:
    """Return a message as a line."""
    return message.model_dump_json().encode() + b"\n"
