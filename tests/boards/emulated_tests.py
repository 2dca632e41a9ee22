"""The agent's own tests on an emulated board: those that its processor, its C library or its runtimes could change.

What is left out is the rest of tests/agent and tests/protocol: decisions that are arithmetic of Python, and what
measures, kills or keeps time with other processes.
Broker and test code are those of this machine.
"""

from __future__ import annotations

import os
import re

from tests.boards.qemu_user import EmulatedBoard

CHOSEN = (
    "tests/agent/inference/test_backends.py",
    "tests/agent/inference/test_engine.py",
    "tests/agent/inference/test_listeners.py",
    "tests/agent/inference/test_shared_memory.py",
    "tests/agent/updates/test_fit.py",
    "tests/agent/updates/test_record.py",
    "tests/agent/updates/test_states.py",
    "tests/protocol/test_durable.py",
    "tests/protocol/test_golden.py",
    "tests/protocol/test_tensor_specs.py",
)
GENERATED = "test_whatever_is_asked_is_done_inside_or_refused"
"""Hundreds of generated cases, which run here: half a minute of translation."""
ON_ARMV7 = (
    "tests/agent/inference/test_listeners.py",
    "tests/agent/updates/test_states.py",
    "tests/protocol/test_tensor_specs.py",
)


def run_tests(board: EmulatedBoard, files: tuple[str, ...], broker_url: str) -> int:
    """Run tests on a board, each of them to pass; returns how many there were."""
    pytest = [
        "python3",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir=/checkout",
        "-c",
        "/checkout/pyproject.toml",
    ]
    ran = board.run(
        *("env", "--chdir=/checkout", *pytest, "-m", "not slow", "-k", f"not {GENERATED}", "--timeout=240", *files),
        timeout_s=900,
        HYPOTHESIS_STORAGE_DIRECTORY="/tmp/hypothesis",
        AUTOGLM_EDGE_TEST_BROKERS=f"mosquitto={broker_url}",
        PYTEST_XDIST_WORKER=os.environ.get("PYTEST_XDIST_WORKER", "gw0"),  # which keeps ports apart
    )
    assert ran.returncode == 0, ran.stdout[-6000:]
    ended = re.search(r"(\d+) passed", ran.stdout)
    assert ended is not None, ran.stdout[-6000:]
    return int(ended[1])
