"""Listening sockets that the service manager has bound and hands over: sd_listen_fds(3).

They outlive the agent: what connects while it is started again waits in them and is not refused.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

FIRST_DESCRIPTOR = 3


class Inherited(socket.socket):
    """A socket that is the service manager's: its name stays when we close it."""


def inherited_sockets(environment: MutableMapping[str, str] = os.environ) -> list[Inherited]:
    """Take them over, once: no process that the agent starts finds them in the environment then."""
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    sockets = []
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)):
        os.set_inheritable(descriptor, False)
        sockets.append(Inherited(fileno=descriptor))
    return sockets
