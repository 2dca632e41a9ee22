"""Certificates on boards whose clock is behind: judged by the time before which it cannot be."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from tests.fakes.certificates import Authority

from autoglm_edge_protocol.address import BrokerAddress, tls_context

DAY_S = 86_400.0


def handshake(context: ssl.SSLContext, certificate: tuple[Path, Path]) -> None:
    """Connect to a server with that certificate. Raises SSLError."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        # As paho does it: wrapped first, and shaken hands with afterwards.
        with context.wrap_socket(near, server_hostname="127.0.0.1", do_handshake_on_connect=False) as client:
            client.do_handshake()
    finally:
        near.close()
        thread.join()


@pytest.mark.parametrize(
    ("valid_days", "floor_days", "is_believed"),
    [
        ((-1, 1), None, True),
        ((-1, 1), -5, True),  # a clock that is right needs no floor
        ((100, 200), None, False),
        ((-200, -100), -300, False),
        ((100, 200), 150, True),  # the clock is behind: it has begun by then
        ((180, 200), 150, True),  # it may have begun since
        ((-1, 300), 150, True),
        ((-1, 100), 150, False),  # it was over by then
        ((-200, -100), 150, False),
    ],
)
def test_a_broker_is_judged_by_the_later_of_clock_and_floor(
    tmp_path: Path, valid_days: tuple[float, float], floor_days: float | None, is_believed: bool
) -> None:
    authority = Authority(tmp_path)
    # The authority's own certificate is valid for a day around now, and its time counts only while the clock does.
    certificate = authority.give("broker", valid_days)
    floor = 0.0 if floor_days is None else time.time() + floor_days * DAY_S
    context = tls_context(BrokerAddress("127.0.0.1", 8883, True, ca_file=authority.ca_file, time_floor=floor))
    if is_believed:
        handshake(context, certificate)
    else:
        with pytest.raises(ssl.SSLError, match=r"expired|not yet valid|is valid"):
            handshake(context, certificate)


def test_a_floor_makes_nobody_believed_who_is_not_signed_for(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger").give("broker", (-1, 300))
    floor = time.time() + 150 * DAY_S
    address = BrokerAddress("127.0.0.1", 8883, True, ca_file=Authority(tmp_path).ca_file, time_floor=floor)
    with pytest.raises(ssl.SSLError, match=r"unable to get|self-signed|unknown"):
        handshake(tls_context(address), stranger)
