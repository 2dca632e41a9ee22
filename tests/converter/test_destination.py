"""A conversion that is killed while it moves its bundle into place: the next one finds the old release or the new."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm_edge_converter import destination
from autoglm_edge_converter.destination import BUNDLE, Destination
from autoglm_edge_converter.errors import OutputUnavailable
from autoglm_edge_protocol.durable import Disk

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.converter.test_destination import write
from autoglm_edge_converter import destination
from autoglm_edge_protocol.durable import Disk

class Killing(Disk):
    left = int(sys.argv[2])
    def replace(self, source, target):
        if Killing.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        Killing.left -= 1
        super().replace(source, target)

destination.Disk = Killing
write(destination.Destination(Path(sys.argv[1]), "m-1.0.0", force=True), "new")
"""
RENAMES = 4
"""Staging becomes ready, the old directory goes aside, the new one and the packed file come to their places."""


def write(place: Destination, content: str) -> None:
    with place.staged() as staging:
        write_into(staging, place, content)
        place.publish()


def found(place: Destination) -> tuple[str, str]:
    return (place.directory / "variants" / "model").read_text(), place.packed.read_text()


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@pytest.mark.parametrize("renames", range(RENAMES + 1))
def test_a_kill_between_two_renames_is_finished_by_the_next_run(tmp_path: Path, renames: int) -> None:
    place = Destination(tmp_path, "m-1.0.0")
    write(place, "old")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(renames)], env=environment, check=False)
    assert done.returncode == (-signal.SIGKILL if renames < RENAMES else 0)
    with pytest.raises(OutputUnavailable, match="exists already"), place.staged():
        pass
    assert found(place) == (("old", "old") if renames == 0 else ("new", "new"))
    assert names(tmp_path) == ["m-1.0.0", "m-1.0.0.bundle"]


@pytest.mark.parametrize("renames", range(RENAMES))
def test_a_disk_that_fails_between_two_renames_leaves_the_old_release(
    tmp_path: Path, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Disk):
        left = renames

        def replace(self, source: Path, target: Path) -> None:
            Failing.left -= 1
            if Failing.left == -1:
                raise OSError("the disk fails once")
            super().replace(source, target)

    write(Destination(tmp_path, "m-1.0.0"), "old")
    monkeypatch.setattr(destination, "Disk", Failing)
    place = Destination(tmp_path, "m-1.0.0", force=True)
    with pytest.raises(OSError, match="fails once"):
        write(place, "new")
    assert found(place) == ("old", "old")
    assert names(tmp_path) == ["m-1.0.0", "m-1.0.0.bundle"]


WAITING = """
import sys
from pathlib import Path
from tests.converter.test_destination import write_into
from autoglm_edge_converter.destination import Destination

place = Destination(Path(sys.argv[1]), "m-1.0.0", force=len(sys.argv) > 2)
with place.staged() as staging:
    write_into(staging, place, "first")
    print("staged", flush=True)
    sys.stdin.readline()
    place.publish()
"""


def write_into(staging: Path, place: Destination, content: str) -> None:
    (staging / BUNDLE / "variants").mkdir(parents=True)
    (staging / BUNDLE / "variants" / "model").write_text(content)
    (staging / place.packed.name).write_text(content)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has written its bundle and publishes when it is told to."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", WAITING, str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "staged\n"
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="directories cannot be locked there")
@pytest.mark.parametrize("force", [False, True])
def test_what_another_process_writes_is_left_alone(tmp_path: Path, other: subprocess.Popen[str], force: bool) -> None:
    place = Destination(tmp_path, "m-1.0.0", force=force)
    with pytest.raises(OutputUnavailable, match="another conversion is writing"):
        write(place, "second")
    write(Destination(tmp_path, "m-2.0.0"), "another version")
    other.communicate("go on\n", timeout=30)
    assert other.returncode == 0
    assert found(place) == ("first", "first")


def test_what_a_dead_process_has_written_is_not(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait(30)
    place = Destination(tmp_path, "m-1.0.0")
    write(place, "second")
    assert found(place) == ("second", "second")
    assert names(tmp_path) == ["m-1.0.0", "m-1.0.0.bundle"]


def test_what_has_come_meanwhile_is_not_replaced(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    place = Destination(tmp_path, "m-1.0.0")
    place.directory.mkdir()
    _, said = other.communicate("go on\n", timeout=30)
    assert "exists already" in said
    assert names(tmp_path) == ["m-1.0.0"]
    assert not list(place.directory.iterdir())
