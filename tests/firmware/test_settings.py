"""The way into a network, derived and written; and what is refused."""

from __future__ import annotations

import configparser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_firmware.errors import SettingRefused
from autoglm_edge_firmware.settings.wifi import derive, for_netplan, for_network_manager, for_wpa_supplicant

# IEEE 802.11-2020, J.4.2, the first two.
VECTORS = {
    ("IEEE", "password"): "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e",
    ("ThisIsASSID", "ThisIsAPassword"): "0dc0d6eb90555ed6419756b9a15ec3e3209b63df707dd508d14581f8982721af",
}


@pytest.mark.parametrize(("network", "key"), VECTORS.items())
def test_keys_are_those_of_the_standard(network: tuple[str, str], key: str) -> None:
    assert derive(*network).key == key


def test_a_key_is_taken_as_it_is() -> None:
    assert derive("x", "AB" * 32).key == "ab" * 32


@given(st.text(min_size=1, max_size=8).filter(lambda text: all(ord(letter) > 31 for letter in text)))
def test_no_name_ends_its_own_quotes(ssid: str) -> None:
    wifi = derive(ssid, "12345678")
    keyfile = configparser.ConfigParser(interpolation=None)
    keyfile.read_string(for_network_manager(wifi))
    name = keyfile["wifi"]["ssid"].rstrip(";").split(";")
    assert bytes(map(int, name)).decode() == ssid
    assert keyfile["wifi-security"]["psk"] == wifi.key
    assert f"ssid={ssid.encode().hex()}\n" in for_wpa_supplicant(wifi)
    (point,) = [line.strip() for line in for_netplan(wifi).splitlines() if "password" in line]
    quoted = point[: point.index('": {')].removeprefix('"')
    assert quoted.encode().decode("unicode_escape") == ssid


def test_an_open_network_has_no_key() -> None:
    wifi = derive("x", None, "DE")
    assert "psk" not in for_wpa_supplicant(wifi) + for_network_manager(wifi)
    assert "key_mgmt=NONE" in for_wpa_supplicant(wifi)
    assert "country=DE\n" in for_wpa_supplicant(wifi)


@pytest.mark.parametrize(
    ("ssid", "passphrase", "country"),
    [
        ("", "12345678", ""),
        ("x" * 33, "12345678", ""),
        ("a\nb", "12345678", ""),
        ("x", "short", ""),
        ("x", "s" * 64, ""),
        ("x", "pässwörter", ""),
        ("x", "12345678", "de"),
    ],
)
def test_what_is_no_network(ssid: str, passphrase: str, country: str) -> None:
    with pytest.raises(SettingRefused) as caught:
        derive(ssid, passphrase, country)
    assert passphrase not in str(caught.value)
