"""The metric: windows on which a variant decides as the original does, from the same window and the same state.

--metric examples/speech_stateful/decisions.py:decided_alike
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

SPEECH = 0.5
STATE, OUTPUT = "stateN", "output"
CLOSE = 0.05
"""How far a variant's state may be from the original's, as a share of that: errors in it are fed back."""

Outputs = Mapping[str, npt.NDArray[np.float32]]


def decided_alike(expected: Sequence[Outputs], outputs: Sequence[Outputs], labels: object) -> float:
    """Return the share of windows with the same decision and a state that is close."""
    return float(np.mean([_alike(one, other) for one, other in zip(expected, outputs, strict=True)]))


def _alike(expected: Outputs, found: Outputs) -> bool:
    decisions = [float(one[OUTPUT].reshape(-1)[0]) >= SPEECH for one in (expected, found)]
    distance = np.linalg.norm(found[STATE] - expected[STATE]) / max(float(np.linalg.norm(expected[STATE])), 1e-9)
    return decisions[0] == decisions[1] and bool(distance <= CLOSE)
