"""What is done with a request for a certificate: pure, over what is known of the claim, the key that asks, the time.

    claim is                    the same key asks      another key asks
    fresh                       issue or hold          -
    expired, revoked            refuse                 refuse
    waiting for approval        hold                   refuse, and note it
    approved                    issue                  refuse, and note it
    answered                    repeat                 refuse, and note it
    answered, device revoked    refuse                 refuse, and note it

An answer may get lost and a board may lose its power: the same key with the same claim always gets the same answer. A
claim that was used in time is not undone by its expiry.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from autoglm_edge_protocol.deployment import Reason


@dataclass(frozen=True)
class Known:
    """What is known of a claim."""

    expires_at: float
    needs_approval: bool
    is_revoked: bool = False
    key_sha256: str | None = None
    """Of who asked first; None: nobody did."""
    is_approved: bool = False
    is_answered: bool = False
    is_certificate_revoked: bool = False


class Step(Enum):
    """What to do."""

    ISSUE = "issue"
    HOLD = "hold"
    REPEAT = "repeat"


@dataclass(frozen=True)
class Refuse:
    """Say no. `is_contested`: a second board holds the claim, which its owner must hear of."""

    reason: Reason
    is_contested: bool = False


UNKNOWN = Reason(code="claim-unknown", message="this fleet has made no such claim; was it made for another one?")
_REVOKED = Reason(code="claim-revoked", message="the claim was revoked; ask the fleet's owner for another one")
_EXPIRED = Reason(code="claim-expired", message="the claim has expired; ask the fleet's owner for another one")
_USED = Reason(code="claim-used", message="another board has used the claim; each board needs one of its own")
_DEVICE_REVOKED = Reason(code="device-revoked", message="the device that this claim made was revoked")


def decide(known: Known, key_sha256: str, now: float) -> Step | Refuse:
    """Decide about a request that the claim's secret has proven."""
    if known.key_sha256 not in (None, key_sha256):
        return Refuse(_USED, is_contested=True)
    if known.is_answered:
        return Refuse(_DEVICE_REVOKED) if known.is_certificate_revoked else Step.REPEAT
    if known.is_revoked:
        return Refuse(_REVOKED)
    if known.is_approved:
        return Step.ISSUE
    if known.key_sha256 is None and now >= known.expires_at:
        return Refuse(_EXPIRED)
    return Step.HOLD if known.needs_approval else Step.ISSUE


def free_name(wanted: str, taken: frozenset[str], suffix: str) -> str:
    """Return the name that a device gets: what it wants, unless another has it or it is not a device's to have."""
    wanted = wanted.lstrip("_-") or "device"
    if wanted not in taken:
        return wanted
    return f"{wanted[: 63 - len(suffix)]}-{suffix}"
