"""Isolated environments: whole or not there, whoever is killed; what cannot be made is told in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoglm_edge_converter import environments
from autoglm_edge_converter.environments import (
    ENVIRONMENTS,
    FOLDER_VARIABLE,
    Environment,
    find_environment,
    ready_environment,
)
from autoglm_edge_converter.errors import EnvironmentUnavailable
from autoglm_edge_converter.interpreters import find_interpreter, variable_of
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk

SMALLEST = "tflite-2.14"
_MAKE = "import sys; from autoglm_edge_converter.environments import ready_environment as r; print(r(sys.argv[1]))"


class Told:
    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.steps: list[str] = []

    def stage(self, name: str, steps: int) -> None:
        self.stages.append((name, steps))

    def step(self, what: str) -> None:
        self.steps.append(what)

    def note(self, text: str) -> None:
        pass


class SmallDisk(Disk):
    def free_bytes(self, path: Path) -> int:
        return 20 * 1024 * 1024


def start_making(folder: Path) -> subprocess.Popen[str]:
    variables = {**os.environ, FOLDER_VARIABLE: str(folder)}
    return subprocess.Popen([sys.executable, "-c", _MAKE, SMALLEST], env=variables, stdout=subprocess.PIPE, text=True)


def wait_for(folder: Path, pattern: str) -> None:
    until = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert time.monotonic() < until
        time.sleep(0.02)


def numpy_version(python: Path) -> str:
    asked = [str(python), "-I", "-c", "import numpy, tflite_runtime; print(numpy.__version__)"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=list(ENVIRONMENTS))
def test_requirements_are_locked_with_digests_and_name_no_index(environment: Environment) -> None:
    text = environment.requirements.read_text()
    assert text.count("--hash=sha256:") >= len(environment.pins) > 1
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.slow
def test_an_environment_is_made_whole_and_found_again(tmp_path: Path) -> None:
    told = Told()
    python = ready_environment(SMALLEST, told, tmp_path)
    assert numpy_version(python) == ENVIRONMENTS[SMALLEST].pins["numpy"] == "1.26.4"
    assert told.stages == [("make the environment tflite-2.14 (once)", 4)]
    assert len(told.steps) == 4
    again = Told()
    assert ready_environment(SMALLEST, again, tmp_path) == python
    assert again.stages == []
    assert not list(tmp_path.glob("*.making"))


@pytest.mark.slow
def test_two_processes_at_once_make_one(tmp_path: Path) -> None:
    both = [start_making(tmp_path), start_making(tmp_path)]
    said = {process.communicate(timeout=250)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(said) == 1
    assert numpy_version(Path(said.pop())) == "1.26.4"
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["*.making/pyvenv.cfg", "*.making/lib/python*/site-packages/numpy"])
def test_what_a_killed_process_left_is_not_used(tmp_path: Path, moment: str) -> None:
    process = start_making(tmp_path)
    wait_for(tmp_path, moment)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert find_environment(SMALLEST, tmp_path) is None
    assert numpy_version(ready_environment(SMALLEST, folder=tmp_path)) == "1.26.4"
    assert not list(tmp_path.glob("*.making"))


@pytest.mark.slow
def test_an_environment_whose_interpreter_is_gone_is_made_anew(tmp_path: Path) -> None:
    environment = ENVIRONMENTS[SMALLEST]
    version, _ = find_interpreter(environment.pythons) or ("none", None)
    digest = sha256_of(environment.requirements.read_bytes() + version.encode())
    stale = tmp_path / f"{SMALLEST}-{digest[:12]}" / "bin" / "python"
    stale.parent.mkdir(parents=True)
    stale.symlink_to(tmp_path / "uninstalled")
    assert find_environment(SMALLEST, tmp_path) is None
    assert ready_environment(SMALLEST, folder=tmp_path) == stale
    assert numpy_version(stale) == "1.26.4"


@pytest.mark.slow
def test_without_an_index_the_line_has_the_command_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "empty"), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(EnvironmentUnavailable) as caught:
        ready_environment(SMALLEST, folder=tmp_path / "kept")
    line = str(caught.value)
    assert "\n" not in line
    assert "Is the package index reachable? By hand: " in line
    assert [path for path in (tmp_path / "kept").iterdir() if path.is_dir()] == []
    # The command in the line is one that works, once there is an index again.
    for name in ("NO_INDEX", "FIND_LINKS", "CONFIG_FILE"):
        monkeypatch.delenv(f"PIP_{name}")
    subprocess.run(line.partition("By hand: ")[2], shell=True, check=True, capture_output=True)
    found = find_environment(SMALLEST, tmp_path / "kept")
    assert found is not None
    assert numpy_version(found) == "1.26.4"


def test_too_little_room_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnavailable, match=r"it takes 250 MB and 20 MB are free in .*make room"):
        ready_environment(SMALLEST, folder=tmp_path, disk=SmallDisk())
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentUnavailable, match=rf"cannot be written .*{FOLDER_VARIABLE}"):
        ready_environment(SMALLEST, folder=tmp_path / "file" / "below")


def test_without_an_interpreter_the_line_says_which_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Environment(SMALLEST, ("3.4",), 1)
    monkeypatch.setitem(environments.ENVIRONMENTS, SMALLEST, entry)
    with pytest.raises(EnvironmentUnavailable, match=r"needs Python 3\.4 with .*AUTOGLM_EDGE_PYTHON34"):
        ready_environment(SMALLEST, folder=tmp_path)


def test_this_interpreter_is_found_and_a_variable_comes_first(tmp_path: Path) -> None:
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert find_interpreter([own]) == (own, Path(sys.executable))
    link = tmp_path / "python"
    link.symlink_to(Path(sys.executable).resolve())
    assert find_interpreter([own], {variable_of(own): str(link)}) == (own, link)


def test_an_interpreter_that_lies_about_its_version_is_passed_over(tmp_path: Path) -> None:
    shim = tmp_path / "python3.9"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.9: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:/bin", "PYENV_ROOT": str(tmp_path), variable_of("3.9"): str(tmp_path / "absent")}
    assert find_interpreter(["3.9"], variables) is None
    installed = tmp_path / "versions" / "3.9.1" / "bin"
    installed.mkdir(parents=True)
    (installed / "python").symlink_to(sys.executable)
    assert find_interpreter(["3.9"], variables) is None
