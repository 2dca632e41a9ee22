"""What a device's messages change in what is known of it: pure decisions over (known, message).

Messages come more than once and out of order: retained ones again on every subscription, unacknowledged ones again
after a reconnection, the will of a connection long after the next one began. So what is known of a device is a pair of
maxima, of (session, offline) for presence and of (session, sequence) for reports, and any order of the same messages
ends in the same state. Within a session, offline is final: a device that connects again begins a new session.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autoglm_edge_protocol.deployment import DesiredState, Presence, ReportedState

QUEUED = "queued"
CONFIRMED = "confirmed"
FAILED = "failed"
SUPERSEDED = "superseded"
"""A newer generation was issued before this one had ended."""
ENDED = frozenset({CONFIRMED, FAILED, SUPERSEDED})


@dataclass(frozen=True)
class Known:
    """How far a device's messages have been taken in."""

    presence_session: int = -1
    online: bool = False
    report_session: int = -1
    report_sequence: int = -1


def after_presence(known: Known, presence: Presence) -> Known | None:
    """Return what is known after a presence message, None when it is stale."""
    before = (known.presence_session, not known.online)
    after = (presence.session, not presence.online)
    if after < before or presence.session < 0:
        return None
    return replace(known, presence_session=presence.session, online=presence.online)


def after_report(known: Known, report: ReportedState) -> Known | None:
    """Return what is known after a report, None when it is stale or known already."""
    if (report.session, report.sequence) <= (known.report_session, known.report_sequence):
        return None
    return replace(known, report_session=report.session, report_sequence=report.sequence)


def next_generation(issued: int, reported: int) -> int:
    """Return the generation of a new desired state, above all that were issued and all that the device has seen.

    The device may know a higher one than we do when the database was restored from a backup.
    """
    return max(issued, reported) + 1


@dataclass(frozen=True)
class Standing:
    """How far a device's desired state has got."""

    desired: DesiredState
    published_generation: int
    """The newest generation that a broker has acknowledged, ever."""
    reported_generation: int
    """The generation that the device works on or has ended, 0 when it has none."""
    published_epoch: str = ""
    """The epoch of the signatures (see `trust.director`) that a broker has acknowledged last."""


def needs_publication(standing: Standing, acknowledged_generation: int | None, epoch: str = "") -> bool:
    """Decide whether a desired state must be given to the broker.

    It must when its signature is of another epoch than now. `acknowledged_generation` is what the broker has
    acknowledged on this connection. A device that has reported the generation needs nothing; any other gets it once a
    connection, as a broker may have lost what it had retained.
    """
    generation = standing.desired.generation
    if standing.published_generation < generation or standing.published_epoch != epoch:
        return True
    return generation not in (standing.reported_generation, acknowledged_generation)
