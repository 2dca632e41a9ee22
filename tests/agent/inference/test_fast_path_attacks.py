"""What a client of the fast path may send that no honest one does: an error or an end, and nothing else happens."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.descriptors import open_files
from tests.fakes.fast_path_channels import HostedChannel, memory_of
from tests.fakes.identity_bundles import make_identity_bundle
from tests.fakes.model_bundles import make_model_bundle
from tests.fakes.served_models import ServedModel

from autoglm_edge_agent.client import Client, InferenceRefused
from autoglm_edge_agent.client.wire import CONTROL, REQUEST, REQUEST_KIND
from autoglm_edge_agent.inference import fast_channel, fast_path
from autoglm_edge_protocol.bundle import read_manifest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fast path is Linux's")


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator[HostedChannel]:
    manifest = read_manifest(make_model_bundle(tmp_path / "bundle", width=4).directory)
    with HostedChannel(manifest, manifest.variants[0]) as hosted:
        yield hosted


def _layout(**changes: Any) -> dict[str, Any]:
    """A layout of a row of four numbers and a row of ten."""
    places = {"inputs": [{"offset": 0, "shape": [1, 4]}], "outputs": {"offset": 64, "bytes": 64}}
    return {"op": "layout", "layout": 1, "bytes": 128, **places, **changes}


def _request(layout: int = 1, number: int = 7, priority: int = 0, timeout_us: int = 0) -> bytes:
    return REQUEST.pack(REQUEST_KIND, priority, layout, 0, number, timeout_us)


def test_what_is_right_is_answered(hosted: HostedChannel) -> None:
    memory = memory_of(128)
    assert hosted.control(_layout(), [memory]) == {"layout": 1}
    os.close(memory)
    assert hosted.send(_request())
    assert hosted.answer() == (200, 7, b"\x02\x01\x00\x00\x00\x0a\x00\x00\x00")
    assert hosted.send(_request(number=8))
    assert hosted.answer() == (200, 8, b"")  # the shapes are known by now


def test_what_a_client_asked_that_has_gone_is_not_run(hosted: HostedChannel) -> None:
    memory = memory_of(128)
    hosted.control(_layout(), [memory])
    os.close(memory)
    goes_on = threading.Event()
    hosted.model.engine.call(lambda: _wait(goes_on))
    for number in range(5):
        assert hosted.send(_request(number=number))
    hosted.client.close()
    assert not hosted.channel.rung()
    goes_on.set()
    idle = threading.Event()
    hosted.model.engine.call(idle.set)
    assert idle.wait(20)
    assert hosted.model.statistics.to_json("", "")["execution_count"] == 0


def _wait(event: threading.Event) -> None:
    assert event.wait(20)


LAYOUTS: dict[str, tuple[dict[str, Any], str]] = {
    "no number": (_layout(layout="1"), "16 bits"),
    "a large number": (_layout(layout=65536), "16 bits"),
    "no size": (_layout(bytes=None), "'bytes' must be"),
    "a negative size": (_layout(bytes=-1), "'bytes' must be"),
    "nothing": (_layout(bytes=0), "smaller than the layout says"),
    "more than there is": (_layout(bytes=129), "smaller than the layout says"),
    "more than allowed": (_layout(bytes=2**40), "at most"),
    "no inputs": (_layout(inputs=[]), "a list of 1"),
    "inputs that are none": (_layout(inputs={"x": 1}), "a list of 1"),
    "an input that is none": (_layout(inputs=[7]), "'shape' must be"),
    "no shape": (_layout(inputs=[{"offset": 0}]), "'shape' must be"),
    "no offset": (_layout(inputs=[{"shape": [1, 4]}]), "'offset' must be"),
    "a crooked offset": (_layout(inputs=[{"offset": 4, "shape": [1, 4]}]), "multiple of 64"),
    "an offset outside": (_layout(inputs=[{"offset": 128, "shape": [1, 4]}]), "multiple of 64"),
    "a huge offset": (_layout(inputs=[{"offset": 2**63, "shape": [1, 4]}]), "'offset' must be"),
    "a negative offset": (_layout(inputs=[{"offset": -64, "shape": [1, 4]}]), "'offset' must be"),
    "more elements than there is room": (_layout(inputs=[{"offset": 0, "shape": [9, 4]}]), "multiple of 64"),
    "a huge shape": (_layout(inputs=[{"offset": 0, "shape": [2**62, 4]}]), "multiple of 64"),
    "a negative shape": (_layout(inputs=[{"offset": 0, "shape": [-1, 4]}]), "'shape' must be"),
    "another shape": (_layout(inputs=[{"offset": 0, "shape": [1, 5]}]), "does not fit"),
    "another rank": (_layout(inputs=[{"offset": 0, "shape": [4]}]), "does not fit"),
    "no outputs": (_layout(outputs=None), "'outputs'"),
    "outputs outside": (_layout(outputs={"offset": 64, "bytes": 65}), "multiple of 64"),
    "outputs before": (_layout(outputs={"offset": -64, "bytes": 64}), "'offset' must be"),
}


@pytest.mark.parametrize("what", LAYOUTS)
def test_layout_that_is_refused(hosted: HostedChannel, what: str) -> None:
    message, text = LAYOUTS[what]
    before = open_files()
    memory = memory_of(128)
    assert text in hosted.control(message, [memory])["error"]
    os.close(memory)
    assert not open_files() - before
    assert hosted.channel.held_bytes == 0


def _plain_file() -> int:
    return os.open(__file__, os.O_RDONLY | os.O_CLOEXEC)


def _read_only() -> int:
    memory = memory_of(128)
    try:
        return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(memory)


MEMORIES: dict[str, tuple[Callable[[], list[int]], str]] = {
    "none": (list, "the descriptor of its memory"),
    "two": (lambda: [memory_of(128), memory_of(128)], "the descriptor of its memory"),
    "many": (lambda: [memory_of(128) for _ in range(50)], "the descriptor of its memory"),
    "unsealed": (lambda: [memory_of(128, sealed=False)], "F_SEAL_SHRINK"),
    "too small": (lambda: [memory_of(127)], "smaller than the layout says"),
    "a file": (lambda: [_plain_file()], "cannot be used"),
    "a pipe": (lambda: list(os.pipe()[:1]), "cannot be used"),
    "read only": (lambda: [_read_only()], "cannot be used"),
}


@pytest.mark.parametrize("what", MEMORIES)
def test_memory_that_is_refused(hosted: HostedChannel, what: str) -> None:
    make, text = MEMORIES[what]
    memories = make()
    before = open_files()
    assert text in hosted.control(_layout(), memories)["error"]
    assert not open_files() - before  # what was handed over is closed
    for each in memories:
        os.close(each)
    assert hosted.send(_request())
    assert hosted.answer()[0] == 400


@pytest.mark.parametrize(
    "message",
    [b"", b"X", b"R", _request()[:-1], _request() + b"x", b"A" + _request()[1:], CONTROL + b"{" * 70_000],
    ids=["nothing", "unknown", "cut", "shorter", "longer", "an answer", "larger than a message may be"],
)
def test_message_that_is_none_ends_the_connection(hosted: HostedChannel, message: bytes) -> None:
    assert not hosted.send(message)
    assert hosted.client.recv(10) == b""


CONTROLS: dict[str, bytes] = {
    "no JSON": b"{",
    "no text": b"\xff",
    "no object": b"[]",
    "nothing": b"",
    "deep": b"[" * 60_000,
    "a long number": b"1" * 60_000,
    "unknown": b'{"op": "format", "layout": 1}',
    "an unknown operation with a long name": json.dumps({"op": "\x00" * 10_000, "layout": 1}).encode(),
    "another version": b'{"op": "hello", "version": 2}',
}


@pytest.mark.parametrize("what", CONTROLS)
def test_control_message_that_is_refused(hosted: HostedChannel, what: str) -> None:
    assert hosted.send(CONTROL + CONTROLS[what])
    answer = hosted.client.recv(65536)
    assert json.loads(answer[1:])["status"] == 400
    assert len(answer) < 1000
    assert hosted.control({"op": "hello", "version": 1})["model"] == "linear"


def test_memory_of_all_clients_together_is_bounded(hosted: HostedChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_channel, "MOST_BYTES", 1000)
    memory = memory_of(128)
    answers = [hosted.control(_layout(layout=number), [memory]) for number in range(9)]
    assert answers[:7] == [{"layout": number} for number in range(7)]
    assert [each["status"] for each in answers[7:]] == [503, 503]
    assert hosted.control({"op": "forget", "layout": 0}) == {"layout": 0}
    assert hosted.control(_layout(layout=9), [memory]) == {"layout": 9}
    monkeypatch.setattr(fast_channel, "MOST_BYTES", 10**6)
    monkeypatch.setattr(fast_channel, "MOST_LAYOUTS_TOGETHER", 8)
    assert hosted.control(_layout(layout=10), [memory]) == {"layout": 10}
    assert hosted.control(_layout(layout=11), [memory])["status"] == 503
    monkeypatch.setattr(fast_channel, "MOST_LAYOUTS", 8)
    assert hosted.control(_layout(layout=11), [memory])["status"] == 413
    os.close(memory)


def test_a_text_model_has_no_layouts(tmp_path: Path) -> None:
    make_identity_bundle(tmp_path)
    manifest = read_manifest(tmp_path)
    with HostedChannel(manifest, manifest.variants[0]) as hosted:
        memory = memory_of(128)
        for message in ({"op": "hello", "version": 1}, _layout()):
            assert "text" in hosted.control(message, [memory])["error"]
        os.close(memory)


SCRAPS = st.one_of(
    st.none(), st.integers(-1, 200), st.integers(), st.text(max_size=3), st.lists(st.integers(0, 5), max_size=3)
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "op": st.one_of(st.sampled_from(["hello", "forget"]), SCRAPS),
        "layout": SCRAPS,
        "bytes": SCRAPS,
        "inputs": st.one_of(
            SCRAPS, st.lists(st.fixed_dictionaries({}, optional={"offset": SCRAPS, "shape": SCRAPS}), max_size=2)
        ),
        "outputs": st.one_of(SCRAPS, st.fixed_dictionaries({}, optional={"offset": SCRAPS, "bytes": SCRAPS})),
    },
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_any_layout_is_taken_or_refused(hosted: HostedChannel, changes: dict[str, Any]) -> None:
    memory = memory_of(128)
    answer = hosted.control(_layout(**changes), [memory])
    os.close(memory)
    if "error" in answer:
        assert answer["status"] in (400, 413, 503) and "\n" not in answer["error"]
    elif "model" not in answer:
        assert hosted.send(_request(layout=answer["layout"]))
        assert hosted.answer()[0] in (200, 400, 413)
        hosted.control({"op": "forget", "layout": answer["layout"]})


# a real worker ----


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    directory = tmp_path_factory.mktemp("attacked")
    bundle = make_model_bundle(directory / "bundle", width=4)
    with ServedModel(bundle.directory, bundle.reference, directory) as served:
        yield served


def _connect(served: ServedModel) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(20)
    connection.connect(str(served.fast_path))
    return connection


def _serves(served: ServedModel) -> bool:
    """Ask once; again where those that have gone still fill the queue, who are the same client by its process."""
    deadline = time.monotonic() + 20
    with Client(served.fast_path, retry_s=20) as client:
        while True:
            try:
                return client.infer({"x": [[0, 0, 0, 0]]})["y"].shape == (1, 10)
            except InferenceRefused as refused:
                assert refused.status == 503 and time.monotonic() < deadline
                time.sleep(refused.retry_after_s or 0)


def test_a_client_that_never_reads_is_left(served: ServedModel) -> None:
    pid = served.worker_pid
    with _connect(served) as connection, pytest.raises(ConnectionError):
        for _ in range(100_000):
            connection.send(_request(layout=9))
    assert _serves(served)
    assert served.worker_pid == pid


def test_clients_that_go_at_once_harm_nobody(served: ServedModel) -> None:
    pid = served.worker_pid
    for _ in range(20):
        with _connect(served) as connection:
            memory = memory_of(128)
            socket.send_fds(connection, [CONTROL + json.dumps(_layout()).encode()], [memory])
            os.close(memory)
            for number in range(20):
                connection.send(_request(number=number))
    assert _serves(served)
    assert served.worker_pid == pid


def test_too_many_clients_are_sent_away(served: ServedModel) -> None:
    hello = CONTROL + b'{"op": "hello", "version": 1}'
    connections = [_connect(served) for _ in range(fast_path.MOST_CHANNELS + 5)]
    answered = 0
    for connection in connections:
        try:
            connection.send(hello)
            answered += connection.recv(65536) != b""
        except ConnectionError:
            pass
    assert answered == fast_path.MOST_CHANNELS
    for connection in connections:
        connection.close()
    assert _serves(served)
