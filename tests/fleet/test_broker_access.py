"""What a device must not be able to do, and a board that is none yet, each tried at a real broker.

That something did not come is seen by what comes after it: each row ends with a message that does come, published by
the same client or to the same client, in order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.fakes.agents import wait_until
from tests.fakes.certificates import Authority
from tests.fakes.guarded_brokers import GuardedBroker, Papers, Visitor

from autoglm_edge_fleet.broker_access import emqx
from autoglm_edge_fleet.broker_access.plan import BrokerPlan, BrokerSettings, Kind
from autoglm_edge_fleet.broker_access.rights import LARGEST_MESSAGE_BYTES
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.local_broker import available_kinds
from autoglm_edge_protocol.limits import LIMITS

T = "autoglm/v1/home"
BLOCK = f"{'0' * 64}/0"


@dataclass(frozen=True)
class Ground:
    """A broker, two devices, and the fleet itself, connected."""

    broker: GuardedBroker
    mine: Papers
    others: Papers
    owner: Visitor
    observer: Visitor
    """Sees every topic there is."""


@pytest.fixture(scope="module", params=available_kinds())
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp(request.param)
    with Fleet.init(folder / "fleet", "home") as fleet:
        broker = GuardedBroker(fleet, request.param, folder / "broker")
        mine, others = broker.papers("dev-1"), broker.papers("dev-2")
        with (
            broker,
            broker.device(broker.owner, "owner") as owner,
            broker.device(broker.observer, "observer") as observer,
        ):
            observer.subscribe("#")
            owner.publish(f"{T}/dev-2/desired", b"kept for dev-2", retain=True)
            observer.until(b"kept for dev-2")
            yield Ground(broker, mine, others, owner, observer)


@pytest.mark.parametrize("channel", ["reported", "presence", "answer", "telemetry", "fetch", "credit", "renewal"])
def test_a_device_says_what_is_its_own_to_say(ground: Ground, channel: str) -> None:
    with ground.broker.device(ground.mine, "autoglm-dev-1-a") as device:
        device.publish(f"{T}/dev-1/{channel}", b"said " + channel.encode())
        assert ground.observer.until(b"said " + channel.encode()) == [
            (f"{T}/dev-1/{channel}", b"said " + channel.encode())
        ]


@pytest.mark.parametrize(
    "topic",
    [
        f"{T}/dev-2/reported",
        f"{T}/dev-2/presence",
        f"{T}/dev-2/renewal",
        f"{T}/dev-2/desired",
        f"{T}/dev-1/desired",
        f"{T}/dev-1/command",
        f"{T}/dev-1/renewed",
        f"{T}/_all/block/{BLOCK}",
        f"{T}/enrol-0/enrolment",
        f"{T}/enrol-0/enrolled",
        "autoglm/v1/other/dev-1/reported",
        "autoglm/v1",
        "anything",
    ],
)
def test_a_device_cannot_say(ground: Ground, topic: str) -> None:
    with ground.broker.device(ground.mine, "autoglm-dev-1-b") as device:
        device.publish(topic, b"forged")
    with ground.broker.device(ground.mine, "autoglm-dev-1-c") as device:
        device.publish(f"{T}/dev-1/answer", topic.encode())
        assert ground.observer.until(topic.encode()) == [(f"{T}/dev-1/answer", topic.encode())]


def test_a_device_cannot_say_it_in_its_will(ground: Ground) -> None:
    with ground.broker.device(ground.mine, "autoglm-dev-1-d", will=f"{T}/dev-2/presence") as device:
        device.cut()
        assert device.wait_gone()
    with ground.broker.device(ground.mine, "autoglm-dev-1-d", will=f"{T}/dev-1/presence") as device:
        device.cut()
        assert device.wait_gone()
    assert ground.observer.until(b"will") == [(f"{T}/dev-1/presence", b"will")]


def test_a_device_hears_what_is_for_it(ground: Ground) -> None:
    heard = [
        "dev-1/desired",
        "dev-1/command",
        "dev-1/refusal",
        "dev-1/renewed",
        f"dev-1/block/{BLOCK}",
        f"_all/packed/{BLOCK}",
    ]
    with ground.broker.device(ground.mine, "autoglm-dev-1-e") as device:
        device.subscribe(*(f"{T}/{each}" for each in heard))
        for each in heard:
            ground.owner.publish(f"{T}/{each}", each.encode())
        assert sorted(device.until(heard[-1].encode())) == sorted((f"{T}/{each}", each.encode()) for each in heard)
    ground.observer.until(heard[-1].encode())


@pytest.mark.parametrize(
    "forbidden",
    [
        f"{T}/dev-2/desired",
        f"{T}/dev-2/+",
        f"{T}/+/desired",
        f"{T}/#",
        "#",
        "+/+/+/+/+",
        f"{T}/dev-2/reported",
        "$SYS/#",
    ],
)
def test_a_device_cannot_hear(ground: Ground, forbidden: str) -> None:
    with ground.broker.device(ground.mine, "autoglm-dev-1-f") as device:
        device.subscribe(forbidden, f"{T}/dev-1/desired")
        ground.owner.publish(f"{T}/dev-2/desired", b"for dev-2", retain=True)
        ground.owner.publish(f"{T}/dev-2/reported", b"of dev-2")
        ground.owner.publish(f"{T}/dev-1/desired", b"for dev-1")
        heard = device.until(b"for dev-1")
        # A filter that its own topic matches, too, may bring that twice.
        assert {topic for topic, _ in heard} == {f"{T}/dev-1/desired"}
    ground.observer.until(b"for dev-1")


@pytest.mark.parametrize("user", ["dev-2", "the.fleet", "CN=the.fleet"])
def test_a_name_in_the_connection_changes_nothing(ground: Ground, user: str) -> None:
    with ground.broker.device(ground.mine, "autoglm-dev-1-g", user=user) as device:
        device.publish(f"{T}/dev-2/reported", b"forged")
        device.publish(f"{T}/dev-1/desired", b"forged")
        device.publish(f"{T}/dev-1/reported", b"true")
    with ground.broker.device(ground.mine, "autoglm-dev-1-g") as device:
        device.publish(f"{T}/dev-1/answer", b"the end")
    # A broker may refuse the connection altogether.
    assert set(ground.observer.until(b"the end")) <= {
        (f"{T}/dev-1/reported", b"true"),
        (f"{T}/dev-1/answer", b"the end"),
    }


def test_the_fleet_hears_what_devices_and_boards_say(ground: Ground) -> None:
    said = ["dev-1/reported", "dev-1/renewal", "enrol-9/enrolment"]
    ground.owner.subscribe(*(f"{T}/+/{each.split('/')[1]}" for each in said))
    with ground.broker.device(ground.mine, "autoglm-dev-1-i") as device, ground.broker.board("enrol-9") as board:
        for each in said[:2]:
            device.publish(f"{T}/{each}", each.encode())
        board.publish(f"{T}/{said[2]}", said[2].encode())
        heard = set[str]()
        while not heard >= {f"{T}/{each}" for each in said}:
            heard.add(ground.owner.got.get(timeout=15)[0])
    ground.observer.until(said[2].encode())


def test_a_board_asks_and_hears_the_answer(ground: Ground) -> None:
    with ground.broker.board("enrol-1") as board:
        assert board.is_in
        board.subscribe(f"{T}/enrol-1/enrolled")
        board.publish(f"{T}/enrol-1/enrolment", b"asks")
        assert ground.observer.until(b"asks") == [(f"{T}/enrol-1/enrolment", b"asks")]
        ground.owner.publish(f"{T}/enrol-1/enrolled", b"answer")
        assert board.until(b"answer") == [(f"{T}/enrol-1/enrolled", b"answer")]
    ground.observer.until(b"answer")


@pytest.mark.parametrize(
    ("topic", "client_id", "user"),
    [
        (f"{T}/dev-1/reported", "enrol-2", None),
        (f"{T}/dev-1/reported", "dev-1", None),
        (f"{T}/dev-1/reported", "enrol-2", "dev-1"),
        (f"{T}/dev-1/desired", "enrol-2", "the.fleet"),
        (f"{T}/dev-1/desired", "enrol-2", "CN=the.fleet"),
        (f"{T}/enrol-2/enrolled", "enrol-2", None),
        (f"{T}/_all/block/{BLOCK}", "enrol-2", None),
        ("anything", "enrol-2", None),
    ],
)
def test_a_board_cannot_say(ground: Ground, topic: str, client_id: str, user: str | None) -> None:
    with ground.broker.board(client_id, user=user) as board:
        board.publish(topic, b"forged")
    with ground.broker.board("enrol-3") as board:
        board.publish(f"{T}/enrol-3/enrolment", b"asks")
        assert ground.observer.until(b"asks") == [(f"{T}/enrol-3/enrolment", b"asks")]


@pytest.mark.parametrize(
    "forbidden", [f"{T}/dev-2/desired", f"{T}/#", "#", f"{T}/+/enrolment", f"{T}/dev-2/+", "$SYS/#"]
)
def test_a_board_cannot_hear(ground: Ground, forbidden: str) -> None:
    with ground.broker.board("enrol-4") as board:
        board.subscribe(forbidden, f"{T}/enrol-4/enrolled")
        ground.owner.publish(f"{T}/dev-2/desired", b"for dev-2", retain=True)
        ground.owner.publish(f"{T}/enrol-5/enrolment", b"of another")
        ground.owner.publish(f"{T}/enrol-4/enrolled", b"for it")
        assert {topic for topic, _ in board.until(b"for it")} == {f"{T}/enrol-4/enrolled"}
    ground.observer.until(b"for it")


def test_a_board_does_not_hear_the_answers_to_others(ground: Ground) -> None:
    with ground.broker.board("enrol-6") as board:
        board.subscribe(f"{T}/+/enrolled", f"{T}/enrol-7/enrolled", f"{T}/enrol-6/enrolled")
        ground.owner.publish(f"{T}/enrol-7/enrolled", b"for another")
        ground.owner.publish(f"{T}/enrol-6/enrolled", b"for it")
        heard = {payload for _, payload in board.until(b"for it")}
    ground.observer.until(b"for it")
    # NATS has no word for the client id in the rights of a user; what it hears there is proven for another claim.
    assert heard == ({b"for it"} if ground.broker.kind == "mosquitto" else {b"for another", b"for it"})


def test_a_board_cannot_say_more_than_the_protocol_has_room_for(ground: Ground) -> None:
    with ground.broker.board("enrol-8") as board:
        board.publish(f"{T}/enrol-8/enrolment", bytes(LARGEST_MESSAGE_BYTES + 1024))
    with ground.broker.board("enrol-8") as board:
        board.publish(f"{T}/enrol-8/enrolment", bytes(LIMITS.control_bytes))
        board.publish(f"{T}/enrol-8/enrolment", b"asks")
        assert [len(payload) for _, payload in ground.observer.until(b"asks")] == [LIMITS.control_bytes, 4]


def test_nobody_is_let_in_without_a_certificate_that_counts(ground: Ground, tmp_path: Path) -> None:
    stranger = Papers(*Authority(tmp_path).give("dev-1"))
    broker = ground.broker
    own = Papers(broker.folder / "broker.pem", broker.folder / "broker.key")
    expired = broker.papers("dev-1", now=time.time() - 400 * 86_400)
    for papers in (None, stranger, own, expired):
        with Visitor(broker, broker.port, "somebody", papers) as visitor:
            assert not visitor.is_in
    with broker.device(ground.mine, "autoglm-dev-1-h") as device:
        device.publish(f"{T}/dev-1/reported", b"true")
        assert ground.observer.until(b"true") == [(f"{T}/dev-1/reported", b"true")]


def test_a_connection_is_ended_by_nobody_who_does_not_know_its_name(ground: Ground) -> None:
    with ground.broker.device(ground.others, "autoglm-dev-2-0123456789abcdef01234567") as victim:
        for guess in ("dev-2", "autoglm-home-dev-2", "autoglm-dev-2"):
            with ground.broker.device(ground.mine, guess), ground.broker.board(guess):
                pass
        victim.publish(f"{T}/dev-2/reported", b"still here")
        ground.observer.until(b"still here")
        assert not victim.is_gone


def test_revoked_is_who_has_been_revoked_and_nobody_else(ground: Ground) -> None:
    broker = ground.broker
    fresh = broker.papers("dev-3")
    _reload_until(broker, fresh, "dev-3", is_in=True)
    broker.fleet.enrolment.revoke_device("dev-3", "lost")
    broker.fleet.enrolment.broker.refresh()
    _reload_until(broker, fresh, "dev-3", is_in=False)
    # Another board in its place, with the same name, and the old one stays out.
    replacing = broker.papers("dev-3")
    _reload_until(broker, replacing, "dev-3", is_in=True)
    assert not _gets_in(broker, fresh, "dev-3")
    assert _gets_in(broker, ground.mine, "dev-1")


def test_an_open_connection_of_who_is_revoked(ground: Ground) -> None:
    """As docs/enrolment.md says: NATS ends it when it is reloaded, Mosquitto when it is restarted."""
    broker = ground.broker
    papers = broker.papers("dev-4")
    _reload_until(broker, papers, "dev-4", is_in=True)
    with broker.device(papers, "autoglm-dev-4-a") as device:
        assert device.is_in
        broker.fleet.enrolment.revoke_device("dev-4", "lost")
        broker.fleet.enrolment.broker.refresh()
        _reload_until(broker, papers, "dev-4", is_in=False)
        if broker.kind == "nats":
            assert device.wait_gone()
        else:
            device.publish(f"{T}/dev-4/reported", b"still here")
            assert ground.observer.until(b"still here")


def _reload_until(broker: GuardedBroker, papers: Papers, device: str, is_in: bool) -> None:
    """Let the broker read its files, which it does in its own time."""
    broker.reload()
    wait_until(lambda: _gets_in(broker, papers, device) is is_in, 15, lambda: f"{device}: let in is still {not is_in}")


def _gets_in(broker: GuardedBroker, papers: Papers, device: str) -> bool:
    with broker.device(papers, f"autoglm-{device}-r") as visitor:
        return visitor.is_in


def test_the_rules_for_emqx_are_those_that_its_manual_describes(tmp_path: Path) -> None:
    kind: Kind = "emqx"
    settings = BrokerSettings(
        broker=kind,
        hosts=("b.example",),
        port=8883,
        enrolment_port=8884,
        secret="x",
        folder="/x",
        place="/etc/emqx/fleet",
    )
    files = emqx.files(BrokerPlan("home", settings, (), ("gone",)))
    rules = files["acl.conf"].splitlines()
    assert all(
        rule.startswith(("{allow, ", "{deny, ", "%%")) and (rule[:2] == "%%" or rule.endswith("}.")) for rule in rules
    )
    assert rules[1] == '{deny, {client_attr, "device", "gone"}, all, ["#"]}.'
    assert rules[-1] == "{deny, all}."
    assert any('"autoglm/v1/home/${client_attrs.device}/reported"' in rule for rule in rules)
    assert "${username}" not in files["acl.conf"]
    assert files["emqx.conf"].count("{") == files["emqx.conf"].count("}")
    assert 'cacertfile = "/etc/emqx/fleet/fleet-ca.pem"' in files["emqx.conf"]
