"""The workstation's side starts on macOS and Windows: nothing that it imports needs what only Linux has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LACKS = {
    "macos": ["os.posix_fadvise"],
    "windows": ["fcntl.ioctl", "os.geteuid", "os.posix_fadvise", "signal.SIGKILL"],
}


@pytest.mark.parametrize("system", LACKS)
def test_every_module_is_imported_and_a_fleet_is_made(system: str, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.fakes.other_systems", system, str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    lacks, modules, *said = done.stdout.splitlines()
    assert lacks.split()[1:] == LACKS[system], "the system is not simulated"
    assert int(modules.split()[1]) > 250
    assert any("From a model file to" in line for line in said)
    assert (tmp_path / "fleet" / "repository").is_dir() and (tmp_path / "fleet" / "root-keys").is_dir()
