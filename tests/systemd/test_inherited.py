"""Sockets of the service manager, handed over to a process as systemd does it: from descriptor 3 on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = """
import json, os, sys
from pathlib import Path
from autoglm_edge_agent.config import InferenceSection
from autoglm_edge_agent.inference.listeners import close_listeners, open_listeners
from autoglm_edge_agent.systemd.inherited import inherited_sockets

given = inherited_sockets()
listeners = open_listeners(InferenceSection(socket=Path(sys.argv[1]), http=None), given)
print(json.dumps({
    "given": len(given),
    "own": [type(each).__name__ for each in listeners],
    "inheritable": [each.get_inheritable() for each in listeners],
    "environment": sorted(name for name in os.environ if name.startswith("LISTEN_")),
}))
close_listeners(listeners)
"""


HAND_OVER = """
import fcntl, json, os, sys
descriptors, pid = json.loads(sys.argv[1])
kept = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in descriptors]
for number, each in enumerate(kept):
    os.dup2(each, 3 + number)
os.environ.update(LISTEN_PID=str(pid or os.getpid()), LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES="a:b")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sock-") as path:
        yield Path(path)


def _run(path: Path, sockets: list[socket.socket], pid: int | None = None) -> dict[str, object]:
    """Start the program with these sockets from descriptor 3 on, LISTEN_PID being `pid` or its own."""
    descriptors = [each.fileno() for each in sockets]
    done = subprocess.run(
        [sys.executable, "-c", HAND_OVER, json.dumps([descriptors, pid]), sys.executable, "-c", PROGRAM, str(path)],
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer | {"said": done.stderr}


def _bound(path: Path, kind: socket.SocketKind) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(path))
    listener.listen(8)
    return listener


def test_what_is_handed_over_serves_and_keeps_its_name(folder: Path) -> None:
    stream = _bound(folder / "a.sock", socket.SOCK_STREAM)
    fast = _bound(folder / "a.fast", socket.SOCK_SEQPACKET)
    with stream, fast:
        found = _run(folder / "a.sock", [fast, stream])
    assert (found["given"], found["own"]) == (2, ["Inherited", "Inherited"])
    assert found["inheritable"] == [False, False]
    assert found["environment"] == []
    assert (folder / "a.sock").is_socket()
    assert (folder / "a.fast").is_socket()


def test_what_the_configuration_does_not_name_is_closed(folder: Path) -> None:
    with _bound(folder / "other.sock", socket.SOCK_STREAM) as other:
        found = _run(folder / "a.sock", [other])
    assert found["own"] == ["socket", "socket"]
    assert "nothing is served on" in str(found["said"])
    assert not (folder / "a.sock").exists()


def test_what_is_meant_for_another_process_is_left_alone(folder: Path) -> None:
    with _bound(folder / "a.sock", socket.SOCK_STREAM) as stream:
        assert _run(folder / "b.sock", [stream], pid=1)["given"] == 0
