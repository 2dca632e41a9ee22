"""The sockets on which applications reach the model. The agent binds them; workers inherit them."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from autoglm_edge_agent.addresses import address_of
from autoglm_edge_agent.config import InferenceSection
from autoglm_edge_agent.errors import StateError

BACKLOG = 128
BIND_PATIENCE_S = 5.0
"""After a kill -9 the last worker may hold the port for a moment longer."""


def open_listeners(section: InferenceSection) -> list[socket.socket]:
    """Bind what the configuration asks for. Raises StateError."""
    listeners: list[socket.socket] = []
    try:
        if section.socket is not None:
            listeners.append(_patiently(partial(_unix, section.socket, socket.SOCK_STREAM), str(section.socket)))
        if section.fast_socket is not None:
            bind = partial(_unix, section.fast_socket, socket.SOCK_SEQPACKET)
            listeners.append(_patiently(bind, str(section.fast_socket)))
        if section.http is not None:
            listeners.append(_patiently(partial(_tcp, *address_of(section.http)), section.http))
    except BaseException:
        close_listeners(listeners)
        raise
    return listeners


def endpoints(listeners: list[socket.socket]) -> tuple[str, ...]:
    """Return the addresses as a client would write them."""
    return tuple(_endpoint(listener) for listener in listeners)


def close_listeners(listeners: list[socket.socket]) -> None:
    """Close the sockets and remove the name of the Unix one."""
    for listener in listeners:
        if listener.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                Path(listener.getsockname()).unlink()
        listener.close()


def _patiently(bind: Callable[[], socket.socket], where: str) -> socket.socket:
    deadline = time.monotonic() + BIND_PATIENCE_S
    while True:
        try:
            return bind()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise StateError(f"cannot listen on {where}: {error}") from None
            time.sleep(0.1)


def _unix(path: Path, kind: socket.SocketKind) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The state directory's lock says that no other agent of ours lives: a socket that is there is a leftover.
    with contextlib.suppress(FileNotFoundError):
        if path.is_socket():
            path.unlink()
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _endpoint(listener: socket.socket) -> str:
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"{'fast' if listener.type == socket.SOCK_SEQPACKET else 'unix'}:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"
