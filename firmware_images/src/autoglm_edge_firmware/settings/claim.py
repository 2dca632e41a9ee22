"""The claim that a card carries: read, given the board's name, and never shown.

What a claim means is the fleet's and the board's matter; here it is put onto one card, and onto no second one.
"""

from __future__ import annotations

import time
from pathlib import Path

from autoglm_edge_firmware.errors import SettingRefused
from autoglm_edge_protocol import claims
from autoglm_edge_protocol.claims import Claim
from autoglm_edge_protocol.errors import ProtocolError


def read_claim(path: Path) -> Claim:
    """Read the claim in a file.

    Raises:
        SettingRefused: it is none.
    """
    try:
        return claims.read_claim(path.read_bytes())
    except ProtocolError as error:
        raise SettingRefused(f"{path}: {error}") from None


def for_board(claim: Claim, name_prefix: str) -> bytes:
    """Return the file of a claim as it is put onto a card, with what the board's name begins with."""
    named = claim.model_copy(update={"name_prefix": name_prefix}) if name_prefix else claim
    return named.to_text().encode()


def must_be_valid(claim: Claim, now: float) -> None:
    """Refuse a claim that no board could use any more.

    Raises:
        SettingRefused: it has expired.
    """
    if now > claim.expires_at:
        day = time.strftime("%Y-%m-%d", time.gmtime(claim.expires_at))
        raise SettingRefused(
            f"the claim {claim.claim_id} expired on {day}: make another with `autoglm-edge fleet claim create`"
        )
