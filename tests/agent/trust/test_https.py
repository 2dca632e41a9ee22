"""The web server as a source: honest, slow, endless, failing, or somebody else."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.sticks import HttpsServer

from autoglm_edge_agent.trust import https
from autoglm_edge_agent.trust.https import HttpsRepository


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpsServer]:
    (tmp_path / "web" / "metadata").mkdir(parents=True)
    (tmp_path / "web" / "metadata" / "timestamp.json").write_bytes(b"t" * 100_000)
    with HttpsServer(tmp_path / "web", tmp_path / "certificates") as running:
        yield running


def _repository(server: HttpsServer) -> HttpsRepository:
    return HttpsRepository(server.url + "/", server.ca_file)


def test_a_file_is_read_up_to_one_byte_more_than_it_may_have(server: HttpsServer) -> None:
    repository = _repository(server)
    assert repository.read("metadata/timestamp.json", 100_000) == b"t" * 100_000
    assert len(repository.read("metadata/timestamp.json", 1000) or b"") == 1001
    assert repository.read("metadata/none.json", 1000) is None


def test_slow_retrieval_is_given_up(server: HttpsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def trickle(handler: http.server.SimpleHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_GET", trickle)
    pieces = _repository(server).stream("objects/aa/aa", within_s=0.5)
    assert pieces is not None
    began = time.monotonic()
    with pytest.raises(OSError, match="too slowly"):
        list(pieces)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [500, 301, 206])
def test_any_other_status_is_no_file(server: HttpsServer, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    def answer(handler: http.server.SimpleHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", "http://127.0.0.1:1/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_GET", answer)
    with pytest.raises(OSError, match=str(status)):
        _repository(server).read("metadata/timestamp.json", 1000)


def test_a_server_without_a_believed_certificate_is_not_read(server: HttpsServer) -> None:
    with pytest.raises(OSError, match="certificate"):
        HttpsRepository(server.url).read("metadata/timestamp.json", 1000)
    with pytest.raises(OSError, match="cannot be read"):
        HttpsRepository(server.url.replace("127.0.0.1", "localhost"), server.ca_file).read("metadata/x", 1000)


def _endless_head(handler: http.server.SimpleHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    _repeat(handler, b"x")


def _endless_continue(handler: http.server.SimpleHTTPRequestHandler) -> None:
    _repeat(handler, b"HTTP/1.1 100 Continue\r\n\r\n")


def _endless_chunk_head(handler: http.server.SimpleHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
    _repeat(handler, b"x")


def _repeat(handler: http.server.SimpleHTTPRequestHandler, piece: bytes) -> None:
    handler.close_connection = True
    with contextlib.suppress(OSError):
        for _ in range(200):
            handler.wfile.write(piece)
            time.sleep(0.05)


@pytest.mark.parametrize("answer", [_endless_head, _endless_continue, _endless_chunk_head])
def test_a_server_that_sends_all_but_the_file_is_given_up(
    server: HttpsServer,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[http.server.SimpleHTTPRequestHandler], None],
) -> None:
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_GET", answer)
    monkeypatch.setattr(https, "METADATA_S", 0.5)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"cannot be read|too slowly"):
        _repository(server).read("metadata/timestamp.json", 1000)
    assert time.monotonic() - began < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "https-watchdog"]
