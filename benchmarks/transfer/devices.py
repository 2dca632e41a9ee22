"""A process with some devices in it that fetch one bundle: the agent's own link, fetcher and store.

Reads its orders as JSON on the command line, prints `ready`, waits for a line, fetches, and prints what it measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import psutil
from tests.fakes.light_devices import LightDevice

from autoglm_edge_protocol.deployment import BundleReference


async def _run(orders: dict[str, Any]) -> dict[str, Any]:
    reference = BundleReference.model_validate(orders["bundle"])
    devices = [
        LightDevice(
            Path(orders["directory"]) / name, url, orders["fleet"], name, orders["session"], share=orders["share"]
        )
        for name, url in orders["devices"].items()
    ]
    for device in devices:
        await device.__aenter__()
    while not all(device.connected for device in devices):  # noqa: ASYNC110 - a link has no event
        await asyncio.sleep(0.02)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    process = psutil.Process(os.getpid())
    before = process.cpu_times()
    await asyncio.gather(*(device.fetch(reference) for device in devices))
    after = process.cpu_times()
    for device in devices:
        await device.__aexit__(None, None, None)
    return {
        "took_s": {device.name: device.took_s for device in devices},
        "cpu_s": after.user + after.system - before.user - before.system,
        "rss_bytes": process.memory_info().rss,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_run(json.loads(sys.argv[1])))), flush=True)
