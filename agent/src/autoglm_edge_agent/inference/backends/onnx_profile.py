"""Where the nodes of a graph ran, by ONNX Runtime's own profile: for releases that don't record it when they load."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_protocol.manifest import TensorSpec

_KERNEL = "_kernel_time"


def providers_by_profile(load: Callable[[Path], Any], inputs: Sequence[TensorSpec]) -> Counter[str]:
    """Run once on zeros, and return the number of nodes by ONNX Runtime's names of the providers that ran them.

    `load` makes a session that writes its profile with this prefix. Free dimensions are taken as 1; empty where the
    model does not take such inputs.
    """
    if any(spec.datatype not in DATATYPES for spec in inputs):
        return Counter()
    zeros = {s.name: np.zeros([max(1, size) for size in s.shape], DATATYPES[s.datatype]) for s in inputs}
    with tempfile.TemporaryDirectory() as folder:
        session = load(Path(folder) / "profile")
        try:
            session.run(None, zeros)
        except Exception:  # onnxruntime has no useful hierarchy of errors
            return Counter()
        finally:
            profile = Path(session.end_profiling())
        return _count(json.loads(profile.read_text()))


def _count(events: Sequence[dict[str, Any]]) -> Counter[str]:
    ran = {(event["name"], event.get("args", {}).get("provider")) for event in events if event.get("cat") == "Node"}
    return Counter(provider for name, provider in ran if provider and str(name).endswith(_KERNEL))
