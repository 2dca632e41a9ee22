"""What the units promise, judged by systemd itself where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
MOST_EXPOSED = 2.0
DEVICES = sorted((UNITS / "devices").glob("*.conf"))
with_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd")


def _exposure(unit: Path) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


def _with_drop_ins(folder: Path, drop_ins: list[Path]) -> Path:
    """Return the agent's unit with these drop-ins at its end: the later line adds to a list, and replaces a value."""
    unit = folder / "autoglm-edge-agent.service"
    text, _, installed = (UNITS / unit.name).read_text().partition("[Install]")
    added = "".join(path.read_text().replace("[Service]\n", "") for path in drop_ins)
    unit.write_text(f"{text}{added}\n[Install]{installed}")
    return unit


@with_systemd
@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda path: path.stem)
def test_little_is_exposed(unit: Path) -> None:
    assert _exposure(unit) <= MOST_EXPOSED


@with_systemd
@pytest.mark.parametrize("drop_in", DEVICES, ids=lambda path: path.stem)
def test_little_is_exposed_with_an_accelerator(drop_in: Path, tmp_path: Path) -> None:
    assert _exposure(_with_drop_ins(tmp_path, [drop_in])) <= MOST_EXPOSED


@with_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    folder = tmp_path / "units"
    shutil.copytree(UNITS, folder)
    for unit in folder.glob("autoglm-edge-*.*"):
        if unit.is_file():  # commands that are not installed here would be all that it says
            unit.write_text(re.sub(r"=(\+|-)?/(usr|opt|bin)/\S+", r"=\1/bin/true", unit.read_text()))
    for drop_in in DEVICES:
        shutil.copy(drop_in, folder / "autoglm-edge-agent.service.d")
    units = [str(path) for path in sorted(folder.glob("autoglm-edge-*")) if path.is_file()]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:"},
    )
    ours = [line for line in done.stderr.splitlines() if "autoglm" in line or str(folder) in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


def test_traps_that_others_fell_into() -> None:
    text = (UNITS / "autoglm-edge-agent.service").read_text()
    settings = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert not any(line.startswith("ProcSubset") for line in settings), "psutil reads /proc/uptime and /proc/stat"
    denied = " ".join(line for line in settings if line.startswith("SystemCallFilter=~"))
    assert "@resources" not in denied, "runtimes set the affinity of their threads"
    assert "SystemCallErrorNumber=EPERM" in settings, "what is denied is an error, and ends nobody"
    assert any("ORT_DISABLE_TELEMETRY=1" in line for line in settings)
    # The agent is told to stop alone, and ends its workers in order; what is left over goes with it.
    assert {"KillMode=mixed", "OOMPolicy=continue", "Type=notify"} <= set(settings)
