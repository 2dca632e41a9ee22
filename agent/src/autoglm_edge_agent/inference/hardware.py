"""What makes figures measured here worthless on another board, as one name."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from autoglm_edge_agent.doctor.accelerators import accelerators
from autoglm_edge_agent.doctor.identity import board_name, processor
from autoglm_edge_agent.doctor.tree import Tree
from autoglm_edge_protocol.digests import sha256_of


def hardware_key(root: Path = Path("/")) -> str:
    """Return a digest of board, processor, cores and accelerators: another one after a card moved to another board."""
    tree = Tree(root)
    parts = [board_name(tree) or "", processor(tree), platform.machine(), str(os.cpu_count())]
    parts += [f"{a.name} {a.ready}" for a in accelerators(tree, platform.system(), platform.machine())]
    return sha256_of("\n".join(parts).encode())
