"""Ports for test servers, also where several processes run tests side by side."""

from __future__ import annotations

import itertools
import os
import socket

FIRST, EACH = 12000, 1500
"""Below the range from which outgoing connections take theirs, so that a server that was killed finds its port free."""

_number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12
_candidates = itertools.cycle(range(FIRST + _number * EACH, FIRST + (_number + 1) * EACH))


def free_port() -> int:
    """Return a port that nobody listens on and that no other test process gives out."""
    for port in itertools.islice(_candidates, EACH):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is left for tests")
