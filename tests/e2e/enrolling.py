"""What tests of enrolment have in common: claims, and the agent's command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from autoglm_edge_fleet.enrolment.claims import ClaimTerms
from autoglm_edge_fleet.fleet import Fleet

TERMS = ClaimTerms(3600, {"site": "berlin"})


def agent(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """`autoglm-edge-agent ...`, to its end."""
    command = [str(Path(sys.executable).with_name("autoglm-edge-agent")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def make_claim(fleet: Fleet, folder: Path, terms: ClaimTerms = TERMS) -> Path:
    """A claim, as a board has it."""
    fleet.enrolment.found(plain=True)
    (made,) = fleet.enrolment.create_claims(1, terms, name_prefix="cam")
    path = folder / f"claim-{made.claim_id}.json"
    path.write_text(made.to_text())
    return path
