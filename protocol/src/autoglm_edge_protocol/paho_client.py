"""paho's client with a network thread that outlives exceptions and can be ended.

An exception on paho's network thread (an unreadable packet, a host name that cannot be encoded, a callback) ends the
thread, and the link with it, without a word. Here it is noted, and the client connects anew.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

_REVIVE_S = 1.0


class PersistentClient(paho.Client):
    """An MQTT 3.1.1 client with a persistent session, whose messages are acknowledged by hand."""

    def __init__(self, client_id: str, note_problem: Callable[[str], None]) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False,
            protocol=paho.MQTTv311,
            manual_ack=True,
        )
        self.closing = False
        self._note_problem = note_problem

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        """Run the network thread."""
        while True:
            try:
                return super().loop_forever(timeout, retry_first_connection)
            except Exception as error:
                self._note_problem(f"{type(error).__name__}: {error}")
            time.sleep(_REVIVE_S)
            if self.closing:
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            # A packet that could not be read is still in paho's buffer; only a new connection clears it. When that
            # fails as well, the loop above waits and tries again.
            with contextlib.suppress(Exception):
                self.reconnect()

    def end(self) -> None:
        """Wait for the network thread and free the pair of sockets that wakes it."""
        with contextlib.suppress(AttributeError):  # paho forgets a thread that ends just now while it looks
            self.loop_stop()
        # Left to the garbage collector they may be warned about as unclosed.
        self._reset_sockets()

    def cut(self) -> None:
        """Break the connection under a thread that waits for a broker that takes nothing."""
        self.disconnect()
        connection = self.socket()
        if isinstance(connection, socket.socket):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
