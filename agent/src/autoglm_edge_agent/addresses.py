"""Addresses to listen on, as a person writes them."""

from __future__ import annotations

import ipaddress


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of a loopback address. Raises ValueError."""
    host, port = address_of(text)
    if not is_loopback(host):
        raise ValueError(f"{host} is not a loopback address: to listen there needs token_file or client_ca_file")
    return host, port


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of an address. Raises ValueError."""
    host, separator, port = text.rpartition(":")
    host = host.strip("[]")
    if not separator or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r} is no address; write 127.0.0.1:8000")
    if host != "localhost":
        ipaddress.ip_address(host)
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether a host can be reached from this board alone."""
    return host == "localhost" or ipaddress.ip_address(host).is_loopback
