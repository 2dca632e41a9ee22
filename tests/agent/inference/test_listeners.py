from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm_edge_agent.addresses import split_address
from autoglm_edge_agent.config import InferenceSection
from autoglm_edge_agent.errors import StateError
from autoglm_edge_agent.inference import listeners
from autoglm_edge_agent.inference.listeners import close_listeners, endpoints, open_listeners


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sock-") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "BIND_PATIENCE_S", 0.3)


def test_both_endpoints_accept_and_are_told_with_their_real_port(short: Path) -> None:
    opened = open_listeners(InferenceSection(socket=short / "deep" / "a.sock", http="127.0.0.1:0"))
    unix, fast, http = endpoints(opened)
    assert (unix, fast) == (f"unix:{short}/deep/a.sock", f"fast:{short}/deep/a.fast")
    assert http == f"http://127.0.0.1:{opened[2].getsockname()[1]}"
    socket.create_connection(opened[2].getsockname(), 1).close()
    close_listeners(opened)
    assert not (short / "deep" / "a.sock").exists()


def test_ipv6_is_told_in_brackets() -> None:
    try:
        opened = open_listeners(InferenceSection(socket=None, http="[::1]:0"))
    except StateError as error:  # a machine without IPv6
        assert "[::1]:0" in str(error)
        return
    assert endpoints(opened)[0].startswith("http://[::1]:")
    close_listeners(opened)


def test_a_stale_socket_is_replaced(short: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(short / "a.sock"))
    stale.close()
    opened = open_listeners(InferenceSection(socket=short / "a.sock", http=None))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(short / "a.sock"))
    close_listeners(opened)


def test_a_file_in_the_place_of_the_socket_is_left_alone(short: Path) -> None:
    (short / "a.sock").write_text("precious")
    with pytest.raises(StateError, match="cannot listen on"):
        open_listeners(InferenceSection(socket=short / "a.sock", http=None))
    assert (short / "a.sock").read_text() == "precious"


def test_a_port_in_use_is_one_line_and_frees_what_was_bound(short: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StateError) as caught:
            open_listeners(InferenceSection(socket=short / "a.sock", http=address))
    assert str(caught.value).startswith(f"cannot listen on {address}: ") and "\n" not in str(caught.value)
    assert not (short / "a.sock").exists()


ADDRESSES = [
    ("127.0.0.1:8000", ("127.0.0.1", 8000)),
    ("127.9.9.9:0", ("127.9.9.9", 0)),
    ("localhost:80", ("localhost", 80)),
    ("[::1]:65535", ("::1", 65535)),
]


@pytest.mark.parametrize(("text", "address"), ADDRESSES)
def test_a_loopback_address(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "8000",
        ":8000",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:²",
        "0.0.0.0:8000",
        "192.168.1.2:80",
        "[::]:80",
        "example.org:80",
        "127.0.0.1:8000:9",
    ],
)
def test_what_is_no_loopback_address(text: str) -> None:
    with pytest.raises(ValueError):
        split_address(text)
