"""The command: real runtimes are tried in processes of their own, whatever they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.fakes import boards
from tests.fakes.boards import write_board
from tests.fakes.third_parties import write_backend

from autoglm_edge_agent.doctor.findings import Findings
from autoglm_edge_agent.inference.runtimes import installed_runtimes

CRASHES = """
import os, signal
from autoglm_edge_agent.inference.backends import Backend
print("a talkative runtime")
def providers():
    os.kill(os.getpid(), signal.SIGSEGV)
BACKEND = Backend(lambda *arguments: None, providers)
"""


def _doctor(*arguments: str, path: Path) -> str:
    command = [str(Path(sys.executable).with_name("autoglm-edge-agent")), "doctor", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment).stdout


def test_what_runtimes_can_really_do_is_tried(tmp_path: Path) -> None:
    packages = write_backend(tmp_path / "packages", "crashing", CRASHES)
    root = write_board(boards.PI_5_CORAL_PCIE, tmp_path / "board")
    found = Findings.model_validate(json.loads(_doctor("--json", "--root", str(root), path=packages)))
    runtimes = {runtime.name: runtime for runtime in found.runtimes}
    assert set(runtimes) == {*installed_runtimes(), "crashing"}
    assert (runtimes["crashing"].abilities, runtimes["crashing"].why) == ((), "it was ended by SIGSEGV")
    cpu = {ability.provider: ability for ability in runtimes["onnxruntime"].abilities}["cpu"]
    assert (cpu.works, cpu.placement) == (True, {"cpu": 1})
    assert any("Coral" in line and "not used" in line for line in found.advice)
