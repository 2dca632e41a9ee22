"""The way into a wireless network, kept as the key that is derived from network and passphrase.

The passphrase itself is read, derived from and forgotten: it is never written, and never printed. Whoever has the card
can join that network with the key, as with every board that joins by itself; the key is of no use for another network.
IEEE 802.11-2020, J.4.1.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from autoglm_edge_firmware.errors import SettingRefused

_ROUNDS = 4096
_KEY_BYTES = 32
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{64}")
_COUNTRY = re.compile(r"[A-Z]{2}")


@dataclass(frozen=True)
class Wifi:
    """A network, the key for it (hexadecimal; None for an open one) and the country whose rules the radio keeps."""

    ssid: str
    key: str | None = field(repr=False)
    country: str = ""


def derive(ssid: str, passphrase: str | None, country: str = "") -> Wifi:
    """Return the way into a network; a passphrase of 64 hexadecimal digits is the key already.

    Raises:
        SettingRefused: the name, passphrase or country cannot be one. The passphrase is not in the text.
    """
    if not 1 <= len(ssid.encode()) <= 32 or any(ord(letter) < 32 for letter in ssid):
        raise SettingRefused("the name of a wireless network has 1 to 32 bytes and no control characters")
    if country and not _COUNTRY.fullmatch(country):
        raise SettingRefused(f"{country!r} is no country: two capital letters, such as DE")
    if passphrase is None:
        return Wifi(ssid, None, country)
    if _HEXADECIMAL.fullmatch(passphrase):
        return Wifi(ssid, passphrase.lower(), country)
    if not 8 <= len(passphrase) <= 63 or not all(32 <= ord(letter) <= 126 for letter in passphrase):
        raise SettingRefused("a passphrase of a wireless network has 8 to 63 printable ASCII characters")
    key = hashlib.pbkdf2_hmac("sha1", passphrase.encode(), ssid.encode(), _ROUNDS, _KEY_BYTES)
    return Wifi(ssid, key.hex(), country)


def for_wpa_supplicant(wifi: Wifi) -> str:
    """Return `wpa_supplicant.conf`."""
    country = f"country={wifi.country}\n" if wifi.country else ""
    # The name in hexadecimal, and so without quotes that a name could end.
    secret = f"psk={wifi.key}" if wifi.key else "key_mgmt=NONE"
    return (
        f"ctrl_interface=DIR=/run/wpa_supplicant GROUP=netdev\nupdate_config=0\n{country}"
        f"network={{\n\tssid={wifi.ssid.encode().hex()}\n\tscan_ssid=1\n\t{secret}\n}}\n"
    )


def for_network_manager(wifi: Wifi) -> str:
    """Return a keyfile of NetworkManager."""
    # A list of byte values: nothing to quote, and no name that reads as something else.
    ssid = "".join(f"{byte};" for byte in wifi.ssid.encode())
    security = f"[wifi-security]\nkey-mgmt=wpa-psk\npsk={wifi.key}\n\n" if wifi.key else ""
    return (
        "[connection]\nid=autoglm-edge\ntype=wifi\nautoconnect=true\n\n"
        f"[wifi]\nmode=infrastructure\nhidden=true\nssid={ssid}\n\n"
        f"{security}[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n"
    )


def for_netplan(wifi: Wifi) -> str:
    """Return a file of netplan, for systems that have neither of the others in charge."""
    plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -_."
    name = "".join(letter if letter in plain else f"\\U{ord(letter):08x}" for letter in wifi.ssid)
    secret = f'password: "{wifi.key}"' if wifi.key else "auth: {key-management: none}"
    domain = f'      regulatory-domain: "{wifi.country}"\n' if wifi.country else ""
    return (
        "network:\n  version: 2\n  wifis:\n    wlan0:\n      dhcp4: true\n      optional: true\n"
        f'{domain}      access-points:\n        "{name}": {{{secret}}}\n'
    )
