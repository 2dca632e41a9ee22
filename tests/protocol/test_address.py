from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_protocol.address import BrokerAddress
from autoglm_edge_protocol.errors import MalformedDocument


@pytest.mark.parametrize(
    ("url", "address", "shown"),
    [
        ("mqtt://hub", BrokerAddress("hub", 1883), "mqtt://hub:1883"),
        ("mqtts://hub", BrokerAddress("hub", 8883, tls=True), "mqtts://hub:8883"),
        ("mqtt://hub:1/", BrokerAddress("hub", 1), "mqtt://hub:1"),
        ("mqtt://u:p%40ss@10.0.0.1:2", BrokerAddress("10.0.0.1", 2, user="u", password="p@ss"), "mqtt://10.0.0.1:2"),
        ("mqtt://u@hub", BrokerAddress("hub", 1883, user="u"), "mqtt://hub:1883"),
        ("mqtts://[::1]:9", BrokerAddress("::1", 9, tls=True), "mqtts://[::1]:9"),
    ],
)
def test_addresses(url: str, address: BrokerAddress, shown: str) -> None:
    assert BrokerAddress.parse(url) == address
    assert str(address) == shown
    assert BrokerAddress.parse(shown).host == address.host


@pytest.mark.parametrize(
    "url",
    ["", "hub", "hub:1883", "http://hub", "mqtt://", "mqtt:///x", "mqtt://:1883", "mqtt://hub:0", "mqtt://hub:65536",
     "mqtt://hub:x", "mqtt://hub/path", "mqtt://hub?x=1", "mqtt://hub#x", "mqtt://a..b", "mqtt://" + "a" * 64,
     "mqtt://[::1", "mqtt://a b", "mqtt://:secret@hub", "//hub", "MQTT//hub"],
)  # fmt: skip
def test_texts_that_are_no_address(url: str) -> None:
    with pytest.raises(MalformedDocument):
        BrokerAddress.parse(url)


@given(st.text(max_size=60) | st.from_regex(r"mqtts?://[\w@:.\[\]%/\-\s]{0,30}", fullmatch=True))
def test_any_text_is_an_address_or_malformed(url: str) -> None:
    try:
        address = BrokerAddress.parse(url)
    except MalformedDocument:
        return
    assert address.host
    assert 1 <= address.port <= 65535


def test_a_password_is_never_shown() -> None:
    assert "secret" not in repr(BrokerAddress.parse("mqtt://u:secret@hub"))
    for url in ("mqtt://u:secret@hub:x", "mqtt://:secret@hub", "http://u:secret@hub"):
        with pytest.raises(MalformedDocument) as caught:
            BrokerAddress.parse(url)
        assert "secret" not in str(caught.value)
