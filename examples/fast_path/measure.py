"""Ask the served model over the fast path again and again, and print how long it takes.

usage: measure.py SOCKET [COUNT]
"""

from __future__ import annotations

import sys
import time

import numpy as np

from autoglm_edge_agent.client import Client


def main() -> None:
    """Measure."""
    path, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    random = np.random.default_rng(0)
    with Client(path) as client:
        shapes = {info.name: [max(n, 1) for n in info.shape] for info in client.inputs}
        slot = client.slot(shapes)
        latencies_us = []
        for _ in range(count):
            for place in slot.inputs.values():
                place[...] = random.integers(0, 2, place.shape)
            began = time.perf_counter()
            slot.run()
            latencies_us.append((time.perf_counter() - began) * 1e6)
        p50, p99 = np.percentile(latencies_us, (50, 99))
        outputs = ", ".join(f"{name} {list(array.shape)}" for name, array in slot.outputs.items())
        print(f"{client.model}@{client.version} {client.variant}: {outputs}")  # noqa: T201
        print(f"{count} requests, p50 {p50:.0f} us, p99 {p99:.0f} us")  # noqa: T201


if __name__ == "__main__":
    main()
