"""Telling the service manager how the agent fares: sd_notify(3), whose whole protocol is a datagram of lines.

Where nobody manages the agent nothing is told. That a message cannot be delivered never ends the agent: if it matters,
the manager ends it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

PATIENCE_S = 2.0
"""The manager's queue is short, and full while it is busy; that the agent is ready must not be lost."""


class Notifier:
    """Sends to one service manager.

    Args:
        address: path of its socket, or an abstract name that begins with `@`; None: there is none.
        watchdog_s: it ends the agent when it hears nothing for so long; None: it does not watch.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = address and ("\0" + address[1:] if address.startswith("@") else address)
        self.watchdog_s = watchdog_s if address else None
        self._status = ""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """Take what the manager said from the environment, where no process that the agent starts finds it then."""
        address = environment.pop("NOTIFY_SOCKET", None)
        watchdog_us = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", str(os.getpid()))
        watched = watchdog_us.isdecimal() and pid == str(os.getpid())
        return cls(address, int(watchdog_us) / 1e6 if watched else None)

    def ready(self) -> None:
        """The agent has started."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The agent begins to end."""
        self._send("STOPPING=1")

    def extend_start(self, seconds: float) -> None:
        """The start takes so much longer, from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Say in one line what the agent is about; told when it changes."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text.replace(chr(10), ' ')}")

    def _send(self, line: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(PATIENCE_S)
                channel.sendto(line.encode(), self._address)
        except OSError as error:
            log.warning("the service manager could not be told %s: %s", line.partition("=")[0], error)
