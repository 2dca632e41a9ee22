"""The claim that a card carries: read, given the board's name, and never shown.

What a claim means is the fleet's and the board's matter; here it is put onto one card, and onto no second one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoglm_edge_firmware.errors import SettingRefused

_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Claim:
    """The claim in a file."""

    fleet: str
    claim_id: str
    expires_at: float
    document: dict[str, Any] = field(repr=False)

    def for_board(self, name_prefix: str) -> bytes:
        """Return the claim as it is put onto a card, with what the board's name begins with."""
        named = {**self.document, **({"name_prefix": name_prefix} if name_prefix else {})}
        return (json.dumps(named, indent=2, ensure_ascii=False) + "\n").encode()

    def must_be_valid(self, now: float) -> None:
        """Refuse a claim that no board could use any more.

        Raises:
            SettingRefused: it has expired.
        """
        if now > self.expires_at:
            day = time.strftime("%Y-%m-%d", time.gmtime(self.expires_at))
            raise SettingRefused(
                f"the claim {self.claim_id} expired on {day}: make another with `autoglm-edge fleet claim create`"
            )


def parse_claim(data: bytes) -> Claim:
    """Read a claim. Raises ValueError, whose text never has a part of the document."""
    if len(data) > _LARGEST_BYTES:
        raise ValueError("too large")
    try:
        document = json.loads(data)
        _ = document["secret"]
        return Claim(str(document["fleet"]), str(document["claim_id"]), float(document["expires_at"]), document)
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]}") from None
    except (TypeError, UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError("not JSON of a claim") from None


def read_claim(path: Path) -> Claim:
    """Read the claim in a file.

    Raises:
        SettingRefused: it is none.
    """
    try:
        return parse_claim(path.read_bytes())
    except ValueError as error:
        raise SettingRefused(f"{path}: not a claim ({error})") from None
