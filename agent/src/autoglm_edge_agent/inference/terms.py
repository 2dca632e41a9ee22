"""What a request says of its own urgency: Triton's parameters `priority` and `timeout`.

Source: Triton Inference Server, "Inference Protocols and APIs", request parameters.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.scheduler import Priority

LONGEST_S = 24 * 3600.0


@dataclass(frozen=True)
class Terms:
    """Who asks, how urgently, and for how long the answer is of use."""

    client: Hashable = None
    priority: Priority = Priority.NORMAL
    timeout_s: float | None = None


def check_terms(parameters: Mapping[str, Any]) -> tuple[int, int]:
    """Return `priority` and `timeout` of a request's parameters. Raises RequestError (400)."""
    priority, timeout_us = parameters.get("priority", 0), parameters.get("timeout", 0)
    if type(priority) is not int or priority < 0:
        raise RequestError(400, "the parameter 'priority' must be a whole number: 1 is the most urgent, 0 the default")
    if type(timeout_us) is not int or timeout_us < 0:
        raise RequestError(400, "the parameter 'timeout' must be a whole number of microseconds, 0 for none")
    return priority, timeout_us


def terms_of(client: Hashable, priority: int, timeout_us: int) -> Terms:
    """Return the terms that the two numbers stand for; classes beyond the lowest count as the lowest."""
    known = Priority.NORMAL if priority == 0 else Priority(min(priority, Priority.LOW))
    return Terms(client, known, min(timeout_us / 1e6, LONGEST_S) if timeout_us else None)
