"""Networks, brokers and processes fail in the middle of a transfer: the bundle arrives, exact, at a bounded cost."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.fakes.agents import wait_until
from tests.fakes.brokers import Broker, available_kinds
from tests.fakes.clusters import NatsCluster
from tests.fakes.model_bundles import ModelBundle
from tests.faults.transfers import PAUSE_BYTES, RETRY_S, ProxiedSite, make_large_bundle

pytestmark = pytest.mark.slow

CUTS = 4
CUT_EVERY_BYTES = 500_000
REFUSALS = 2
DELAY_S = 0.1
THIN_BYTES_PER_S = 200_000
THIN_FROM_BYTES = 14_700_000
"""So that eight seconds of the thin line are left."""
DROPPED = "Outgoing messages are being dropped for client autoglm-fleet-"
ARRIVAL_S = 0.1
"""What the times at which the spy hears of two requests may differ by from those at which they were sent."""
FULL_QUEUE = "max_queued_messages 100\nmax_inflight_messages 1\n"
"""Room for a window of blocks: Mosquitto drops acknowledgements too, and a device whose report is not acknowledged says
nothing more for half a minute."""
FLOOD = 150
SMALL_PACKET_BYTES = 24_576
"""Enough for every control message of this fleet, less than half of a block otherwise."""
OVERSIZE = "disconnected due to oversize packet"
MID_PACKET_BYTES = 300_001
"""No multiple of a packet, and less than a window: blocks before it have come, one was torn."""


@dataclass(frozen=True)
class Scene:
    """What a fault can reach."""

    site: ProxiedSite
    broker: Broker


def cut(scene: Scene) -> None:
    scene.site.proxy.cut()
    scene.site.proxy.resume()


def cut_many_times(scene: Scene) -> None:
    for _ in range(CUTS - 1):
        cut(scene)
        scene.site.paused_again(CUT_EVERY_BYTES)
    cut(scene)


def refuse(scene: Scene) -> None:
    proxy = scene.site.proxy
    proxy.refusing = True
    cut(scene)
    wait_until(lambda: proxy.refused >= REFUSALS, 30, "the device does not try again")
    proxy.refusing = False


def delay(scene: Scene) -> None:
    scene.site.proxy.delay(DELAY_S)
    scene.site.proxy.resume()


def throttle(scene: Scene) -> None:
    scene.site.proxy.throttle(THIN_BYTES_PER_S)
    scene.site.proxy.resume()


def reset_in_mid_packet(scene: Scene) -> None:
    proxy = scene.site.proxy
    proxy.reset_after(MID_PACKET_BYTES)
    proxy.resume()
    assert proxy.stopped.wait(30) and proxy.resets == 1


def take_over(scene: Scene) -> None:
    """A second client with the device's name; the broker throws the first one out, which then returns the favour."""
    agent = scene.site.agent
    name = f"autoglm-{agent.fleet}-{agent.device}".encode()
    body = b"\x00\x04MQTT\x04\x00\x00\x3c" + len(name).to_bytes(2, "big") + name
    with socket.create_connection(("127.0.0.1", scene.broker.port), timeout=10) as other:
        other.sendall(b"\x10" + bytes([len(body)]) + body)
        connack = other.recv(4)
        assert connack[:1] == b"\x20" and connack[3] == 0
        scene.site.proxy.resume()
        while other.recv(65536):  # what is meant for the device; then it is thrown out itself
            pass


def kill_broker(scene: Scene) -> None:
    scene.broker.kill()
    scene.site.proxy.resume()
    scene.broker.start()


def kill_fleet(scene: Scene) -> None:
    site = scene.site
    site.wait_counted()
    site.side.kill()
    asked = len(site.spy.requests)
    site.proxy.resume()
    # The device asks, and nobody hears it: it asks again after two seconds or more, and after a longer time then.
    wait_until(lambda: len(site.spy.silences_s(asked, 1.0)) >= 2, 30, "the device does not ask again")
    first, second = site.spy.silences_s(asked, 1.0)
    site.side.start()
    assert RETRY_S - ARRIVAL_S < first < second


def overflow(scene: Scene) -> None:
    """Telemetry waits for a fleet that is not there, until the broker has no place left, and drops it and reports."""
    site = scene.site
    site.wait_counted()
    site.side.kill()
    agent = site.agent
    site.spy.publish(f"autoglm/v1/{agent.fleet}/{agent.device}/telemetry", FLOOD)
    site.proxy.resume()
    wait_until(lambda: DROPPED in scene.broker.log_text(), 30, "the queue was never full")
    site.side.start()


def kill_device(scene: Scene) -> None:
    scene.site.agent.kill()
    scene.site.proxy.resume()
    scene.site.agent.start()


@dataclass(frozen=True)
class Row:
    """A fault, and how often it makes the device begin a window anew."""

    fault: Callable[[Scene], None]
    interruptions: int | None = 1
    pause_bytes: int = PAUSE_BYTES
    settings: str = ""
    """Of the broker."""


ROWS = (
    Row(cut),
    Row(cut_many_times, CUTS),
    Row(refuse),
    Row(delay, 0),
    Row(throttle, 0, THIN_FROM_BYTES),
    Row(reset_in_mid_packet),
    Row(take_over),
    Row(kill_broker),
    Row(kill_fleet),
    Row(kill_device),
    Row(overflow, settings=FULL_QUEUE),
)
AT_NATS = (cut, reset_in_mid_packet, kill_broker, kill_fleet)
"""What differs between brokers: what they keep of a lost connection, and what they remember after their death."""


def _cases() -> list[object]:
    kinds = available_kinds()
    rows = [(kind, row) for kind in kinds for row in ROWS if kind == kinds[0] or row.fault in AT_NATS]
    return [pytest.param(kind, row, id=f"{row.fault.__name__}-{kind}") for kind, row in rows]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return make_large_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize(("kind", "row"), _cases())
def test_a_fault_in_mid_transfer(kind: str, row: Row, large: ModelBundle, tmp_path: Path) -> None:
    broker = Broker(kind, tmp_path / "broker", row.settings)
    with broker, ProxiedSite(tmp_path, broker.port) as site:
        ended = site.endure(large, lambda site: row.fault(Scene(site, broker)), row.interruptions, row.pause_bytes)
        if row.fault is kill_device:
            # It goes on where it was: all that had come before its death is still there, but for chunks that are torn.
            assert ended.present_bytes > 0.9 * PAUSE_BYTES


def test_a_node_of_a_cluster_that_dies_in_mid_transfer(large: ModelBundle, tmp_path: Path) -> None:
    with NatsCluster(tmp_path / "cluster") as cluster:
        near, far, other = cluster.nodes

        def kill_node(site: ProxiedSite) -> None:
            near.kill()
            site.proxy.target_port = other.port
            site.proxy.resume()

        with ProxiedSite(tmp_path, far.port, near.port) as site:
            accepted = site.proxy.accepted
            site.endure(large, kill_node, 1)
            assert site.proxy.accepted > accepted, "the device never came to the other node"


def test_a_broker_with_a_small_packet_limit(large: ModelBundle, tmp_path: Path) -> None:
    """The fleet refuses blocks that are too large, and says how large they may be: the device asks so from there on."""
    broker = Broker(available_kinds()[0], tmp_path / "broker", f"max_packet_size {SMALL_PACKET_BYTES}\n")
    settings = f"max_packet_bytes = {SMALL_PACKET_BYTES}\n"
    with broker, ProxiedSite(tmp_path, broker.port, settings=settings) as site:
        site.endure(large, lambda site: cut(Scene(site, broker)), 1)
        too_large = [request for request in site.spy.requests if request.block_bytes >= SMALL_PACKET_BYTES]
        assert len(too_large) <= 2  # the first of each of the device's fetchers, for metadata and for bundles
        assert OVERSIZE not in broker.log_text()
        assert site.proxy.accepted == 2  # before the cut, and after it
