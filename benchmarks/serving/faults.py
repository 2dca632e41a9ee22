"""What the agent holds, and what is lost while its workers are replaced and killed under load."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from benchmarks.serving.clients import UnixConnection
from tests.fakes.model_bundles import make_model_bundle

from autoglm_edge_agent.client import Client
from autoglm_edge_agent.config import InferenceSection
from autoglm_edge_agent.inference import standby as standby_module
from autoglm_edge_agent.inference import supervisor as supervisor_module
from autoglm_edge_agent.inference.control import Beat
from autoglm_edge_agent.inference.listeners import close_listeners, open_listeners
from autoglm_edge_agent.inference.supervisor import Supervisor
from autoglm_edge_protocol.deployment import Installed, Reason

ACTIVATIONS = 50
KILLS = 50


@dataclass
class Faults:
    """What was seen."""

    agent_mb: float = 0.0
    worker_mb: float = 0.0
    gap_ms: float = 0.0
    activations: int = ACTIVATIONS
    kills: int = KILLS
    answered: int = 0
    lost: int = 0
    answered_http: int = 0
    lost_http: int = 0


def provoke(activations: int = ACTIVATIONS, kills: int = KILLS, *, standby: bool = False) -> Faults:
    """Serve, replace and kill workers, while two clients ask all the time."""
    # Every kill shall count as the first of a worker that was healthy.
    supervisor_module.STEADY_S = 0.0
    standby_module.PAUSE_S = 0.0
    return asyncio.run(_provoke(activations, kills, standby=standby))


async def _provoke(activations: int, kills: int, *, standby: bool) -> Faults:
    found = Faults(activations=activations, kills=kills)
    with tempfile.TemporaryDirectory(prefix="serving-") as name:
        folder = Path(name)
        bundles = [make_model_bundle(folder / str(n), version=f"{n}.0.0", seed=n) for n in (1, 2)]
        places = {Installed(bundle=each.reference, variant="fp32"): each.directory for each in bundles}
        section = InferenceSection(socket=folder / "inference.sock", http=None)
        listeners = open_listeners(section)
        supervisor = Supervisor(
            places.__getitem__,
            listeners,
            1,
            60.0,
            60.0,
            _ignore,
            lambda: None,
            section.serving(),
            standby=standby,
        )

        async def same(installed: Installed, _reason: Reason) -> Installed:
            return installed

        first, second = places
        await supervisor.switch(first)
        keeping = asyncio.create_task(supervisor.keep(same))
        stop = threading.Event()
        asking = [
            threading.Thread(target=_ask_fast, args=(section.fast_socket, stop, found)),
            threading.Thread(target=_ask_http, args=(section.socket, stop, found)),
        ]
        try:
            found.worker_mb = _pss_mb(_worker())
            found.agent_mb = await _agent_mb(folder)
            for thread in asking:
                thread.start()
            for number in range(activations):
                wanted = second if number % 2 == 0 else first
                await supervisor.try_out(wanted)
                await supervisor.switch(wanted)
            found.gap_ms = median([await _kill(section.fast_socket, supervisor) for _ in range(kills)])
        finally:
            stop.set()
            for thread in asking:
                if thread.ident is not None:
                    await asyncio.to_thread(thread.join)
            keeping.cancel()
            await asyncio.wait({keeping})
            await supervisor.close()
            close_listeners(listeners)
    return found


def _ignore(_installed: Installed, _beat: Beat) -> None:
    pass


def _worker() -> int:
    """Return the worker that serves: the oldest that lives, as one that stands in is younger."""
    found: list[tuple[float, int]] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "inference.worker" in " ".join(child.cmdline()):
                found.append((child.create_time(), child.pid))
    return min(found)[1]


def _pss_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_full_info().pss) / 1e6


async def _agent_mb(folder: Path) -> float:
    """Return what the agent's own process holds while it serves nothing and its broker is away."""
    config = folder / "agent.toml"
    config.write_text(
        '[device]\nfleet = "f"\nname = "d"\n[broker]\nurl = "mqtt://127.0.0.1:9"\n'
        f'[storage]\ndirectory = "{folder}/state"\n'
        f'[inference]\nsocket = "{folder}/idle.sock"\nhttp = "127.0.0.1:0"\n[trust]\ninsecure = true\n'
    )
    command = [str(Path(sys.executable).parent / "autoglm-edge-agent"), "run", "--config", str(config)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    await asyncio.sleep(5)
    pss_mb = _pss_mb(process.pid)
    process.terminate()
    await process.wait()
    return pss_mb


async def _kill(fast: Path | None, supervisor: Supervisor) -> float:
    """Kill the worker as a defect of a runtime would; return how long nobody answered, in milliseconds."""
    client = await asyncio.to_thread(Client, str(fast))
    x = np.zeros((1, 64), np.float32)
    await asyncio.to_thread(client.infer, {"x": x})
    with contextlib.suppress(ProcessLookupError):
        os.kill(_worker(), signal.SIGSEGV)
    began = time.monotonic()
    await asyncio.to_thread(client.infer, {"x": x})
    gap_ms = (time.monotonic() - began) * 1000
    client.close()
    await asyncio.sleep(0.2)
    for _ in range(100):
        if not supervisor.standby.wanted or supervisor.standby.pid is not None:
            break
        await asyncio.sleep(0.05)
    return gap_ms


def _ask_fast(path: Path, stop: threading.Event, found: Faults) -> None:
    with Client(path) as client:
        x = np.ones((1, 64), np.float32)
        while not stop.is_set():
            try:
                client.infer({"x": x})
                found.answered += 1
            except Exception as error:
                print(f"fast path: {error!r}", flush=True)
                found.lost += 1
            time.sleep(0.001)


def _ask_http(path: Path, stop: threading.Event, found: Faults) -> None:
    """As clients do: what was not answered because the connection broke is asked again on a new one."""
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}
    body = json.dumps({"inputs": [tensor]})
    connection = UnixConnection(path)
    while not stop.is_set():
        for _ in range(2):
            try:
                connection.request("POST", "/v2/models/linear/infer", body)
                status = connection.getresponse()
                status.read()
                found.answered_http += status.status == 200
                found.lost_http += status.status != 200
                break
            except (TimeoutError, OSError, http.client.HTTPException):
                connection.close()
                connection = UnixConnection(path)
        else:
            found.lost_http += 1
        time.sleep(0.001)
