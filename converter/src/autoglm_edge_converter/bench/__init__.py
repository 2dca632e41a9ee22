"""Latency on this machine, for every runtime and provider that really works here.

`race` holds the measurement, `worker` the process in which one session lives, `inputs` what it is fed, `subject` what
is measured: a model file, or the variants of a bundle.
"""

from __future__ import annotations

from autoglm_edge_converter.bench.race import Contender, Lap, Report, Settings, bench

__all__ = ["Contender", "Lap", "Report", "Settings", "bench"]
