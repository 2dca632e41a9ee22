"""The link against real brokers, and against a broker of our own that misbehaves as no real one would."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.fakes.brokers import Broker, available_kinds
from tests.fakes.ports import free_port
from tests.fakes.processes import halt
from tests.fakes.waiting import until

from autoglm_edge_protocol.deployment import Presence
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.errors import LinkError
from autoglm_edge_protocol.mqtt import IN_FLIGHT, UNSENT_BLOCKS, BrokerAddress, Handler, Link, Message, Will

MOSQUITTO, NATS = "mosquitto", "nats"
PATIENCE_S = 45.0
"""For what a busy machine does in a fraction of a second."""


class Inbox:
    """Keeps what comes in; `delay_s` is how long each message takes."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.messages: list[Message] = []
        self.connections = 0
        self._delay_s = delay_s

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    async def take(self, message: Message) -> None:
        await asyncio.sleep(self._delay_s)
        self.messages.append(message)

    async def connected(self) -> None:
        self.connections += 1


async def _until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    await until(condition, timeout_s)


@contextlib.asynccontextmanager
async def _linked(
    url: str,
    name: str,
    filters: dict[str, int] | None = None,
    on_message: Handler | None = None,
    on_connected: Callable[[], Awaitable[None]] | None = None,
    will: Callable[[], Will] | None = None,
    block_queue: int = 256,
    wait: bool = True,
) -> AsyncIterator[Link]:
    link = Link(
        BrokerAddress.parse(url), name, filters or {}, on_message or Inbox().take, on_connected, will, block_queue
    )
    await link.start()
    try:
        if wait:
            await link.wait_connected(PATIENCE_S)
        yield link
    finally:
        await link.stop()


# with real brokers ----


async def test_messages_arrive_in_order_with_their_flags(broker: Broker) -> None:
    inbox = Inbox()
    async with _linked(broker.url, "sender") as sender:
        await sender.publish("t/kept", b"kept", retain=True)
        async with _linked(broker.url, "receiver", {"t/+": 1, "b/+": 0}, inbox.take):
            await _until(lambda: len(inbox.messages) == 1)
            await asyncio.gather(*(sender.publish("t/x", b"%d" % number) for number in range(100)))
            await _until(lambda: len(inbox.messages) == 101)
            await sender.room_for_block()
            assert sender.send_block("b/x", b"block")
            await _until(lambda: len(inbox.messages) == 102)
    assert inbox.messages[0] == Message("t/kept", b"kept", 1, retained=True)
    assert inbox.payloads[1:101] == [b"%d" % number for number in range(100)]
    assert inbox.messages[101] == Message("b/x", b"block", 0, retained=False)


async def test_two_thousand_publications_stay_within_the_flight(broker: Broker) -> None:
    inbox = Inbox()
    most = 0
    async with _linked(broker.url, "both", {"t": 1}, inbox.take) as link:
        for start in range(0, 2000, 500):  # Mosquitto drops what it holds beyond a thousand
            work = asyncio.gather(*(link.publish("t", b"%d" % n, timeout_s=120) for n in range(start, start + 500)))
            while not work.done():
                most = max(most, len(link._client._out_messages))
                await asyncio.sleep(0.001)
            await work
            await _until(lambda until=start + 500: len(inbox.messages) >= until)  # type: ignore[misc]
    assert 0 < most <= IN_FLIGHT
    assert inbox.payloads == [b"%d" % number for number in range(2000)]


HANDLER_THAT_DIES = """
import asyncio, os, signal, sys
from autoglm_edge_protocol.mqtt import BrokerAddress, Link
async def main():
    async def handle(message):
        print("got", message.payload.decode(), flush=True)
        await asyncio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    link = Link(BrokerAddress.parse(sys.argv[1]), "worker", {"work": 1}, handle)
    await link.start()
    await link.wait_connected(30)
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


# NATS sends again not with the new connection but when its ack_wait is over, 30 s after the last time.
REDELIVERING = [pytest.param(kind, marks=[pytest.mark.slow] if kind == NATS else []) for kind in available_kinds()]


@pytest.mark.parametrize("broker", REDELIVERING, indirect=True)
async def test_what_was_not_handled_before_the_process_died_comes_again(broker: Broker) -> None:
    def run() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HANDLER_THAT_DIES, broker.url], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, process.stdout.readline()

    first, said = await asyncio.to_thread(run)
    with first:
        assert said == "ready\n"
        async with _linked(broker.url, "sender") as sender:
            await sender.publish("work", b"1")
        assert (await asyncio.to_thread(first.communicate))[0] == "got 1\n"
        assert first.returncode == -signal.SIGKILL
    inbox = Inbox()
    async with _linked(broker.url, "worker", {"work": 1}, inbox.take):
        await _until(lambda: inbox.payloads == [b"1"])
    async with _linked(broker.url, "worker", {"work": 1}, inbox.take):  # and handled, it does not
        await asyncio.sleep(0.3)
    assert inbox.payloads == [b"1"]


WITH_A_WILL = """
import asyncio, sys
from autoglm_edge_protocol.deployment import Presence
from autoglm_edge_protocol.mqtt import BrokerAddress, Link, Will
session = int(sys.argv[2])
def will():
    return Will("presence", Presence(device="pi", session=session, online=False).to_bytes())
async def main():
    async def nothing(message): pass
    async def here():
        await link.publish("presence", Presence(device="pi", session=session, online=True).to_bytes(), retain=True)
        print("here", flush=True)
    link = Link(BrokerAddress.parse(sys.argv[1]), "pi", {}, nothing, here, will)
    await link.start()
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_the_will_of_a_killed_process_names_its_session(broker: Broker) -> None:
    inbox = Inbox()
    async with _linked(broker.url, "watcher", {"presence": 1}, inbox.take):
        for session in (7, 8):
            process = subprocess.Popen(
                [sys.executable, "-c", WITH_A_WILL, broker.url, str(session)], stdout=subprocess.PIPE
            )
            with process:
                assert process.stdout is not None
                assert await asyncio.to_thread(process.stdout.readline) == b"here\n"
                process.kill()
            await _until(lambda s=session: len(inbox.messages) == 2 * (s - 6))  # type: ignore[misc]
    seen = [parse(Presence, payload) for payload in inbox.payloads]
    assert [(p.session, p.online) for p in seen] == [(7, True), (7, False), (8, True), (8, False)]


async def test_an_orderly_end_publishes_no_will_and_each_attempt_asks_for_one(broker: Broker) -> None:
    inbox, asked = Inbox(), []

    def will() -> Will:
        asked.append("once more")
        return Will("will", b"%d" % len(asked))

    async with _linked(broker.url, "watcher", {"will": 1}, inbox.take):
        async with _linked(broker.url, "pi", will=will):
            assert len(asked) == 1
        await asyncio.sleep(0.2)
    assert inbox.payloads == []


async def test_a_broker_that_dies_and_comes_back(broker: Broker) -> None:
    inbox, watcher = Inbox(), Inbox()
    sessions = 0

    def will() -> Will:
        nonlocal sessions
        sessions += 1
        return Will("will", b"%d" % sessions)

    async with _linked(broker.url, "both", {"t": 1, "b": 0}, inbox.take, inbox.connected, will) as link:
        await link.publish("t", b"before")
        await _until(lambda: inbox.connections == 1 and inbox.payloads == [b"before"])
        await asyncio.to_thread(broker.kill)
        await _until(lambda: not link.connected)
        assert not link.send_block("b", b"lost")
        with pytest.raises(LinkError, match="not published within 0 s: "):
            await link.publish("t", b"given up", timeout_s=0.2)
        waiting = asyncio.create_task(link.publish("t", b"patient", timeout_s=PATIENCE_S))
        with pytest.raises(LinkError, match=r"within 2 s: .*refused"):
            await link.wait_connected(1.5)
        await asyncio.to_thread(broker.start)
        await waiting
        await _until(lambda: inbox.payloads[-1:] == [b"patient"])
        await asyncio.sleep(0.2)
        assert inbox.connections == 2
        assert b"given up" not in inbox.payloads
        async with _linked(broker.url, "watcher", {"will": 1}, watcher.take):
            assert link._client._will_payload == b"%d" % sessions
            assert sessions >= 2


async def test_too_many_blocks_are_dropped_and_counted(broker: Broker) -> None:
    gate, handled = asyncio.Event(), 0

    async def slow(message: Message) -> None:
        nonlocal handled
        await gate.wait()
        handled += 1

    async with (
        _linked(broker.url, "receiver", {"b": 0}, slow, block_queue=10) as receiver,
        _linked(broker.url, "sender") as sender,
    ):
        for _ in range(100):
            await sender.room_for_block()
            assert sender.send_block("b", bytes(1000))
        # Ten wait; one more is being handled, unless all came before the handler had its first turn.
        await _until(lambda: receiver.dropped_blocks >= 100 - 11)
        gate.set()
        await _until(lambda: handled + receiver.dropped_blocks == 100)
        assert handled in (10, 11)


async def test_a_handler_that_raises_does_not_stop_the_link(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox()

    async def handle(message: Message) -> None:
        if message.payload == b"bad":
            raise ValueError("cannot be handled")
        await inbox.take(message)

    async def connected() -> None:
        raise RuntimeError("nor this")

    async with _linked(broker.url, "both", {"t": 1, "b": 0}, handle, connected) as link:
        for payload in (b"1", b"bad", b"2"):
            await link.publish("t", payload)
        assert link.send_block("b", b"bad")
        assert link.send_block("b", b"3")
        await _until(lambda: sorted(inbox.payloads) == [b"1", b"2", b"3"])
    assert "cannot be handled" in caplog.text
    assert "nor this" in caplog.text


async def test_stopping_fails_what_still_waits(broker: Broker) -> None:
    async with _linked(broker.url, "both") as link:
        await asyncio.to_thread(halt, broker.pid or 0)
        try:
            work = [asyncio.create_task(link.publish("t", bytes(1000))) for _ in range(100)]
            await asyncio.sleep(0.1)
            begun = time.monotonic()
            await link.stop()
            assert time.monotonic() - begun < 15  # not the keepalive, nor for ever
        finally:
            os.kill(broker.pid or 0, signal.SIGCONT)
        results = await asyncio.gather(*work, return_exceptions=True)
        assert [str(result) for result in results] == ["the link was closed"] * 100
        with pytest.raises(LinkError, match="closed"):
            await link.publish("t", b"")


async def test_what_nobody_waits_for_any_more_ends_in_silence(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async with _linked(broker.url, "both") as link:
        await asyncio.to_thread(halt, broker.pid or 0)
        try:
            with pytest.raises(LinkError, match="did not acknowledge"):
                await link.publish("t", b"1", timeout_s=0.2)
            await link.stop()
        finally:
            os.kill(broker.pid or 0, signal.SIGCONT)
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_stopping_before_anything_answers() -> None:
    async with _linked("mqtt://127.0.0.1:1", "early", wait=False) as link:
        with pytest.raises(LinkError, match=r"no connection to mqtt://127\.0\.0\.1:1 within 0 s: .*refused"):
            await link.wait_connected(0.4)
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    await link.stop()
    never_started = Link(BrokerAddress("127.0.0.1", 1), "never", {}, Inbox().take)
    await never_started.stop()


@pytest.mark.parametrize("broken", ["missing", "garbage"])
async def test_tls_files_that_cannot_be_used(tmp_path: Path, broken: str) -> None:
    file = tmp_path / "ca.pem"
    if broken == "garbage":
        file.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
    for address in (
        BrokerAddress("127.0.0.1", 1, tls=True, ca_file=file),
        BrokerAddress("127.0.0.1", 1, tls=True, cert_file=file, key_file=file),
    ):
        link = Link(address, "tls", {}, Inbox().take)
        with pytest.raises(LinkError, match=r"TLS files for mqtts://127\.0\.0\.1:1 cannot be used"):
            await link.start()
        await link.stop()


async def test_blocks_and_control_messages_over_tls(tmp_path: Path) -> None:
    """TLS hands out what it has decrypted without the socket becoming readable, and wants the same bytes again when it
    could not write them."""
    key, certificate, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_port()
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=broker"
    options = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *options], check=True, capture_output=True)
    listener = f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n"
    blocks = [bytes([number]) * 65_536 for number in range(100)]
    inbox = Inbox()
    address = BrokerAddress("127.0.0.1", port, tls=True, ca_file=certificate)
    with Broker(MOSQUITTO, tmp_path / "broker", listener):
        link = Link(address, "both", {"b": 0, "t": 1}, inbox.take)
        await link.start()
        await link.wait_connected(PATIENCE_S)
        for number, block in enumerate(blocks):
            await link.room_for_block()
            assert link.send_block("b", block)
            if number % 10 == 0:
                await link.publish("t", b"%d" % number)
        await _until(lambda: len(inbox.messages) == 110)
        await link.stop()
    assert [message.payload for message in inbox.messages if message.topic == "b"] == blocks
    assert [message.payload for message in inbox.messages if message.topic == "t"] == [
        b"%d" % n for n in range(0, 100, 10)
    ]


# with a broker that misbehaves ----


class Wire:
    """One client's connection to the misbehaving broker: packets in, bytes out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def packet(self) -> tuple[int, bytes]:
        kind = (await self._reader.readexactly(1))[0]
        length = shift = 0
        while True:
            byte = (await self._reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return kind, await self._reader.readexactly(length)

    async def expect(self, kind: int) -> bytes:
        found, body = await self.packet()
        assert found & 0xF0 == kind, f"packet {found:#x} instead of {kind:#x}"
        return body

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def publish(self, topic: bytes, payload: bytes, mid: int) -> None:
        body = len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big") + payload
        self.send(bytes([0x32, len(body)]) + body)

    def close(self) -> None:
        self._writer.close()


CONNECT, PUBLISH, PUBACK, SUBSCRIBE = 0x10, 0x30, 0x40, 0x80
CONNACK = b"\x20\x02\x00\x00"


@contextlib.asynccontextmanager
async def _misbehaving(script: Callable[[Wire, int], Awaitable[None]]) -> AsyncIterator[str]:
    """Serve connections by a script, which is told how many there were before; its failure fails the test."""
    count, failures = 0, []
    wires: list[Wire] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        number, count = count, count + 1
        wires.append(Wire(reader, writer))
        try:
            await script(wires[-1], number)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as error:
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for wire in wires:
            wire.close()
        await asyncio.sleep(0.05)
    assert failures == []


async def _accept(wire: Wire) -> None:
    await wire.expect(CONNECT)
    wire.send(CONNACK)
    wire.send(b"\x90\x03" + (await wire.expect(SUBSCRIBE))[:2] + b"\x01")


async def test_only_the_answer_to_this_subscription_counts() -> None:
    answer = asyncio.Event()

    async def script(wire: Wire, number: int) -> None:
        await wire.expect(CONNECT)
        wire.send(CONNACK)
        mid = (await wire.expect(SUBSCRIBE))[:2]
        wire.send(b"\x90\x03" + (int.from_bytes(mid, "big") + 7).to_bytes(2, "big") + b"\x01")
        await answer.wait()
        wire.send(b"\x90\x03" + mid + b"\x01")
        await wire.packet()

    inbox = Inbox()
    async with (
        _misbehaving(script) as url,
        _linked(url, "x", {"t": 1}, inbox.take, inbox.connected, wait=False) as link,
    ):
        await asyncio.sleep(0.3)
        assert not link.connected
        answer.set()
        await link.wait_connected(PATIENCE_S)
        await _until(lambda: inbox.connections == 1)


async def test_an_acknowledgement_never_reaches_another_connection() -> None:
    seen: list[tuple[int, bytes]] = []
    release = asyncio.Event()

    async def script(wire: Wire, number: int) -> None:
        await _accept(wire)  # fails if anything comes ahead of CONNECT
        if number == 0:
            wire.publish(b"t", b"slow", 5)
            await asyncio.sleep(0.2)
            return
        release.set()
        await asyncio.sleep(0.3)
        wire.publish(b"t", b"next", 6)
        while True:
            seen.append(await wire.packet())

    handled: list[bytes] = []

    async def handle(message: Message) -> None:
        if message.payload == b"slow":
            await release.wait()
        handled.append(message.payload)

    async with _misbehaving(script) as url, _linked(url, "x", {"t": 1}, handle, wait=False):
        await _until(lambda: len(seen) == 1)
    assert handled == [b"slow", b"next"]
    assert seen[0] == (PUBACK, b"\x00\x06")


async def test_a_publication_given_up_keeps_its_place_and_a_block_is_no_acknowledgement() -> None:
    received: list[bytes] = []
    acknowledge = asyncio.Event()

    async def script(wire: Wire, number: int) -> None:
        await _accept(wire)
        mids = []
        for _ in range(IN_FLIGHT):
            body = await wire.expect(PUBLISH)
            mids.append(body[3:5])
            received.append(body[5:])
        await acknowledge.wait()
        for mid in mids:
            wire.send(b"\x40\x02" + mid)
        received.append((await wire.expect(PUBLISH))[5:])
        await wire.packet()

    async with _misbehaving(script) as url, _linked(url, "x", {"u": 1}) as link:
        results = await asyncio.gather(
            *(link.publish("t", b"%d" % n, timeout_s=0.3) for n in range(IN_FLIGHT + 5)), return_exceptions=True
        )
        assert all(isinstance(result, LinkError) for result in results)
        assert received == [b"%d" % n for n in range(IN_FLIGHT)]
        late = asyncio.create_task(link.publish("t", b"late", timeout_s=1))
        await asyncio.sleep(0.1)
        assert len(received) == IN_FLIGHT
        acknowledge.set()
        await _until(lambda: received[-1] == b"late")
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)


async def test_blocks_wait_when_the_socket_is_full_and_others_pass_them() -> None:
    go_on = asyncio.Event()
    came: list[bytes] = []

    async def script(wire: Wire, number: int) -> None:
        await _accept(wire)
        await go_on.wait()
        while True:
            kind, body = await wire.packet()
            if kind == PUBLISH:
                came.append(body[3:])
            elif kind == PUBLISH | 0x02:
                came.append(body[5:])
                wire.send(b"\x40\x02" + body[3:5])

    async with _misbehaving(script) as url, _linked(url, "x", {"u": 1}) as link:
        blocks: list[bytes] = []
        while len(blocks) < 200 and link.send_block("b", bytes([len(blocks)]) * 1_000_000):
            blocks.append(bytes([len(blocks)]) * 1_000_000)
        assert UNSENT_BLOCKS <= len(blocks) < 200
        control = asyncio.create_task(link.publish("t", b"control", timeout_s=PATIENCE_S))
        await asyncio.sleep(0.2)
        go_on.set()
        await asyncio.wait_for(link.room_for_block(), PATIENCE_S)
        assert link.send_block("b", b"again")
        await control
        await _until(lambda: b"again" in came)
    assert [body for body in came if body != b"control"] == [*blocks, b"again"], "torn, lost or out of order"
    assert came.index(b"control") < len(blocks), "it waited for all blocks"


REFUSALS = {
    "bad password": (b"\x20\x02\x00\x05", "Not authorized"),
    "not this client": (b"\x20\x02\x00\x02", "Client identifier not valid"),
    "unreadable packet": (b"\x20\x00", "."),
    "closed at once": (b"", "connection was lost"),
}


@pytest.mark.parametrize(("answer", "said"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_what_stood_in_the_way_is_said_and_the_link_goes_on(answer: bytes, said: str) -> None:
    async def script(wire: Wire, number: int) -> None:
        if number > 0:
            await _accept(wire)
            await wire.packet()
            return
        await wire.expect(CONNECT)
        wire.send(answer)
        await asyncio.sleep(0.3)

    async with _misbehaving(script) as url, _linked(url, "x", {"t": 1}, wait=False) as link:
        with pytest.raises(LinkError, match=said):
            await link.wait_connected(0.5)
        await link.wait_connected(PATIENCE_S)
        assert link.last_problem is None


async def test_a_refused_subscription_is_no_connection_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_edge_protocol.mqtt._RESUBSCRIBE_S", 0.2)

    async def script(wire: Wire, number: int) -> None:
        await wire.expect(CONNECT)
        wire.send(CONNACK)
        for answer in (b"\x80", b"\x80", b"\x01"):
            wire.send(b"\x90\x03" + (await wire.expect(SUBSCRIBE))[:2] + answer)
        await wire.packet()

    inbox = Inbox()
    async with (
        _misbehaving(script) as url,
        _linked(url, "x", {"t": 1}, on_connected=inbox.connected, wait=False) as link,
    ):
        with pytest.raises(LinkError, match="refused a subscription"):
            await link.wait_connected(0.15)
        await link.wait_connected(PATIENCE_S)
        await _until(lambda: inbox.connections == 1)


async def test_a_will_that_fails_or_a_host_that_cannot_be_encoded_does_not_end_the_link() -> None:
    attempts = 0

    def will() -> Will:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("the disk is full")
        return Will("w", b"")

    async def script(wire: Wire, number: int) -> None:
        await _accept(wire)
        await wire.packet()

    async with _misbehaving(script) as url, _linked(url, "x", {"t": 1}, will=will, wait=False) as link:
        with pytest.raises(LinkError, match="the disk is full"):
            await link.wait_connected(0.3)
        await link.wait_connected(PATIENCE_S)
    unresolvable = Link(BrokerAddress("a" * 70, 1), "x", {}, Inbox().take)
    await unresolvable.start()
    with pytest.raises(LinkError, match="label"):
        await unresolvable.wait_connected(0.5)
    await unresolvable.stop()


async def test_a_topic_that_is_not_utf_8_is_thrown_away_and_acknowledged() -> None:
    acknowledged = asyncio.Event()
    inbox = Inbox()

    async def script(wire: Wire, number: int) -> None:
        await _accept(wire)
        wire.publish(b"\xff\xfe", b"x", 9)
        assert await wire.expect(PUBACK) == b"\x00\x09"
        acknowledged.set()
        await wire.packet()

    async with _misbehaving(script) as url, _linked(url, "x", {"t": 1}, inbox.take):
        await asyncio.wait_for(acknowledged.wait(), PATIENCE_S)
    assert inbox.messages == []


async def test_links_leave_no_thread_behind() -> None:
    async def script(wire: Wire, number: int) -> None:
        await _accept(wire)
        await wire.packet()

    before = set(threading.enumerate())
    async with _misbehaving(script) as url:
        for _ in range(3):
            async with _linked(url, "x", {"t": 1}) as link:
                assert link.connected
                await _until(lambda: set(threading.enumerate()) <= before)  # there is one only while it connects
        # A link that is stopped while it connects again leaves the thread to its end.
        await _until(lambda: set(threading.enumerate()) <= before)


ENDS_WITHOUT_STOPPING = """
import asyncio, sys
from autoglm_edge_protocol.mqtt import BrokerAddress, Link
async def main():
    async def nothing(message): pass
    link = Link(BrokerAddress.parse(sys.argv[1]), "careless", {"t": 1}, nothing)
    await link.start()
    await asyncio.sleep(float(sys.argv[2]))
asyncio.run(main())
"""


@pytest.mark.parametrize("lives_s", ["0", "0.5"])
async def test_a_process_that_forgets_to_stop_ends_all_the_same(lives_s: str) -> None:
    async def script(wire: Wire, number: int) -> None:
        await _accept(wire)
        while True:
            wire.publish(b"t", b"more", 1)
            await asyncio.sleep(0.01)

    async with _misbehaving(script) as url:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", ENDS_WITHOUT_STOPPING, url, lives_s, stderr=asyncio.subprocess.PIPE
        )
        _, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert (process.returncode, said) == (0, b"")


async def test_who_is_cancelled_in_the_moment_of_the_acknowledgement_is_cancelled() -> None:
    async def script(wire: Wire, number: int) -> None:
        await _accept(wire)
        for _ in range(2):
            wire.send(b"\x40\x02" + (await wire.expect(PUBLISH))[3:5])
        await wire.packet()

    async with _misbehaving(script) as url, _linked(url, "x", {"u": 1}) as link:
        await link.publish("t", b"as usual")
        busy = asyncio.create_task(link.publish("t", b"", timeout_s=PATIENCE_S))
        await asyncio.sleep(0)
        while link._client._out_messages:  # looked at in every turn of the loop
            await asyncio.sleep(0)
        busy.cancel()
        await asyncio.wait({busy}, timeout=PATIENCE_S)
        assert busy.cancelled()
