from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_protocol.errors import MalformedTopic
from autoglm_edge_protocol.topics import (
    BULK,
    Channel,
    Topic,
    board_filters,
    device_filters,
    fleet_filters,
    parse_topic,
    shared_filter,
)

DIGEST = "0123456789abcdef" * 4

names = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
plain = st.builds(Topic, names, names, st.sampled_from([c for c in Channel if c not in BULK]))
blocks = st.builds(Topic, names, names, st.sampled_from(BULK), digests, st.integers(0, 10**15 - 1))


@given(plain | blocks)
def test_topics_survive_text(topic: Topic) -> None:
    text = str(topic)
    assert parse_topic(text) == topic
    assert text.count("/") <= 7
    assert len(text) <= 256
    assert not set(text) & set("+#$. \0")


@given(st.text(max_size=300) | st.from_regex(r"autoglm/v1/[a-z/+#$.\n\0é]{0,40}", fullmatch=True))
def test_other_text_is_refused_or_was_written_so(text: str) -> None:
    try:
        topic = parse_topic(text)
    except MalformedTopic as error:
        assert str(error).isprintable()
    else:
        assert str(topic) == text


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "+", "a+", "#", "$SYS", "a b", "a.b", "a\n", "\n", "a\0", "é", "٣", "a" * 65, "..", "a\u200b"],
)
def test_no_name_makes_a_filter_or_another_topic(name: str) -> None:
    for text in (f"autoglm/v1/{name}/pi/desired", f"autoglm/v1/home/{name}/desired"):
        with pytest.raises(MalformedTopic):
            parse_topic(text)
    with pytest.raises(MalformedTopic):
        Topic(name, "pi", Channel.DESIRED)
    with pytest.raises(MalformedTopic):
        Topic("home", name, Channel.DESIRED)
    with pytest.raises(MalformedTopic):
        device_filters("home", name)
    with pytest.raises(MalformedTopic):
        fleet_filters(name)


@pytest.mark.parametrize(
    "text",
    [
        "autoglm/v2/home/pi/desired",
        "/autoglm/v1/home/pi/desired",
        "autoglm/v1/home/pi/desired/",
        "autoglm/v1/home/pi/DESIRED",
        "autoglm/v1/home/pi/unknown",
        f"autoglm/v1/home/pi/desired/{DIGEST}/0",
        "autoglm/v1/home/pi/block",
        f"autoglm/v1/home/pi/block/{DIGEST}",
        f"autoglm/v1/home/pi/packed/{DIGEST}",
        "autoglm/v1/home/_all/desired",
        "autoglm/v1/home/_all/credit",
        f"autoglm/v1/home/pi/block/{DIGEST}/00",
        f"autoglm/v1/home/pi/block/{DIGEST}/-1",
        f"autoglm/v1/home/pi/block/{DIGEST}/1_0",
        f"autoglm/v1/home/pi/block/{DIGEST}/{10**15}",
        f"autoglm/v1/home/pi/block/{DIGEST}/1\n",
        f"autoglm/v1/home/pi/block/{DIGEST[:-1]}\n/1",
        f"autoglm/v1/home/pi/block/{DIGEST.upper()}/1",
        f"autoglm/v1/home/pi/block/{DIGEST[:-1]}/1",
        "autoglm/v1/home/pi/block/+/+",
    ],
)
def test_near_misses(text: str) -> None:
    with pytest.raises(MalformedTopic):
        parse_topic(text)


@pytest.mark.parametrize(
    ("channel", "sha256", "offset"),
    [
        (Channel.BLOCK, "", 0),
        (Channel.BLOCK, DIGEST, -1),
        (Channel.BLOCK, DIGEST, 10**15),
        (Channel.DESIRED, DIGEST, 0),
        (Channel.DESIRED, "", 1),
        (Channel.CREDIT, DIGEST, 0),
        (Channel.PACKED, "", 0),
    ],
)
def test_topics_that_say_too_much_or_too_little(channel: Channel, sha256: str, offset: int) -> None:
    with pytest.raises(MalformedTopic):
        Topic("home", "pi", channel, sha256, offset)


def _matches(pattern: str, topic: str) -> bool:
    wanted, levels = pattern.split("/"), topic.split("/")
    return len(wanted) == len(levels) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))


@given(plain | blocks)
def test_each_topic_goes_to_exactly_one_side(topic: Topic) -> None:
    filters = device_filters(topic.fleet, topic.device, enrolled=True) | board_filters(topic.fleet, topic.device)
    to_device = [p for p in filters if _matches(p, str(topic))]
    to_fleet = [p for p in fleet_filters(topic.fleet) if _matches(p, str(topic))]
    assert len(to_device) + len(to_fleet) == 1


def test_filters_fit_every_broker() -> None:
    for filters in (device_filters("home", "pi"), fleet_filters("home")):
        assert len(filters) <= 8  # AWS IoT Core's limit for one SUBSCRIBE
        assert all(pattern.count("/") <= 7 for pattern in filters)
    assert device_filters("home", "pi")["autoglm/v1/home/pi/block/+/+"] == 0
    assert fleet_filters("home")["autoglm/v1/home/+/fetch"] == 0


@given(names, st.sampled_from(BULK), digests, st.integers(0, 10**15 - 1))
def test_what_all_get_reaches_those_who_follow_that_file(
    fleet: str, channel: Channel, sha256: str, offset: int
) -> None:
    topic = str(Topic(fleet, "_all", channel, sha256, offset))
    assert _matches(shared_filter(fleet, sha256), topic)
    assert not _matches(shared_filter(fleet, "0" * 64 if sha256[0] != "0" else "1" * 64), topic)
    assert not any(_matches(pattern, topic) for pattern in device_filters(fleet, "pi"))
