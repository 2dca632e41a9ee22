"""The search for 8-bit variants: `trials` says what is tried and good enough, `strategy` in which order."""

from __future__ import annotations

from autoglm_edge_converter.search.strategy import Experiments, search
from autoglm_edge_converter.search.trials import (
    Demand,
    SearchResult,
    Sensitivity,
    Stage,
    Trial,
    best,
    joined,
    safe,
    within,
)

__all__ = [
    "Demand",
    "Experiments",
    "SearchResult",
    "Sensitivity",
    "Stage",
    "Trial",
    "best",
    "joined",
    "safe",
    "search",
    "within",
]
