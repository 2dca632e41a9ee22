"""A device has the agent and nothing else of ours: in such an environment the agent's own tests pass."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.conftest import GIVEN_BROKERS
from tests.fakes.brokers import Broker, available_kinds

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-agent" / "bin" / "python"
ELSEWHERE = (
    "test_attacks", "test_interruptions", "test_mixed_sources", "test_probation", "test_seeding", "test_bad_input",
    "inference/test_conformance", "inference/test_fast_path_attacks", "inference/test_guide", "inference/test_http",
    "inference/test_oip", "inference/test_probing", "inference/test_repeated_requests", "inference/test_scheduler",
    "inference/test_supervisor", "inference/test_vigil", "trust/test_command_attacks", "trust/test_message_attacks",
    "trust/test_process", "trust/test_repository_attacks",
)  # fmt: skip
"""Files of tests that take long and try the agent's behaviour, which is the same in any environment."""
FOREIGN = ("autoglm_edge", "autoglm_edge_converter", "autoglm_edge_fleet", "onnx", "onnxslim", "magika")


def test_the_environment_holds_only_what_a_device_needs() -> None:
    program = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    found = subprocess.run([PYTHON, "-c", program, *FOREIGN], capture_output=True, text=True, check=True, cwd="/")
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_agents_tests_pass_with_the_agent_alone(tmp_path: Path) -> None:
    kind = available_kinds()[0]
    broker = Broker(kind, tmp_path / "broker")
    broker.start()
    try:
        result = subprocess.run(
            [str(PYTHON), "-m", "pytest", "tests/agent", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
            + [f"--ignore=tests/agent/{name}.py" for name in ELSEWHERE],
            cwd=ROOT,
            env={**os.environ, GIVEN_BROKERS: f"{kind}={broker.url}"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        broker.stop()
    print(result.stdout[-3000:])
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
