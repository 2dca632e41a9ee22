"""The agent's main process stays small: neither numpy nor a runtime is ever loaded into it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.fakes.agents import AgentProcess
from tests.fakes.sites import INPUT, Site

pytestmark = pytest.mark.one_broker

HEAVY = ("numpy", "onnxruntime", "onnx", "ai_edge_litert", "tflite_runtime", "tuf", "securesystemslib", "cryptography")
LIMIT_BYTES = 35 * 1024 * 1024
"""A ceiling that only a heavy import would break: 29 MB were measured, with Python 3.11 on x86-64."""


def _mapped(pid: int) -> set[str]:
    return {line.split(maxsplit=5)[5] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/" in line}


def _heavy(paths: set[str]) -> list[str]:
    return sorted(path for path in paths if any(f"/{name}" in path for name in HEAVY))


def test_a_serving_agent_has_loaded_neither_numpy_nor_a_runtime(site: Site) -> None:
    agent = site.agent()
    site.confirm(site.bundle("1"))
    assert agent.stop() == 0
    agent.start()  # again, as what a first start compiles on its way stays in its memory
    agent.wait_serving()
    agent.infer("linear", INPUT)
    assert _heavy(_mapped(agent.process.pid)) == []
    (worker,) = agent.worker_pids()
    assert _heavy(_mapped(worker)), "the worker must have loaded them, or this test looks in the wrong place"
    pss_bytes = _pss_bytes(agent)
    print(
        f"agent {pss_bytes / 2**20:.1f} MB PSS, worker {psutil.Process(worker).memory_full_info().pss / 2**20:.1f} MB"
    )
    assert pss_bytes < LIMIT_BYTES


def _pss_bytes(agent: AgentProcess) -> int:
    return int(psutil.Process(agent.process.pid).memory_full_info().pss)


@pytest.mark.parametrize("module", ["autoglm_edge_agent.app", "autoglm_edge_agent.cli"])
def test_importing_the_agent_loads_nothing_heavy(module: str) -> None:
    script = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
