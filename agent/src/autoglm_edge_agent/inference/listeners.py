"""The sockets on which applications reach the model. The agent binds them; workers inherit them."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import logging
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from autoglm_edge_agent.addresses import address_of
from autoglm_edge_agent.config import InferenceSection
from autoglm_edge_agent.errors import StateError
from autoglm_edge_agent.systemd.inherited import Inherited

log = logging.getLogger(__name__)

BACKLOG = 128
BIND_PATIENCE_S = 5.0
"""After a kill -9 the last worker may hold the port for a moment longer."""


def open_listeners(section: InferenceSection, inherited: Sequence[Inherited] = ()) -> list[socket.socket]:
    """Take what the configuration asks for from those inherited, and bind the rest. Raises StateError.

    One that the configuration does not ask for is closed.
    """
    listeners: list[socket.socket] = []
    left = list(inherited)
    try:
        if section.socket is not None:
            listeners.append(_named(section.socket, socket.SOCK_STREAM, left))
        if section.fast_socket is not None:
            listeners.append(_named(section.fast_socket, socket.SOCK_SEQPACKET, left))
        if section.http is not None:
            listeners.append(_patiently(partial(_tcp, *address_of(section.http)), section.http))
    except BaseException:
        close_listeners(listeners)
        raise
    finally:
        for unasked in left:
            log.warning("nothing is served on %s: [inference] does not name it", unasked.getsockname())
            unasked.close()
    return listeners


def reserve_grpc(section: InferenceSection) -> socket.socket | None:
    """Bind the address for gRPC without listening: workers share it (SO_REUSEPORT), and nobody else can take it.

    Raises StateError.
    """
    if section.grpc is None:
        return None
    if not all(map(_installed, ("grpc", "google.protobuf"))):
        raise StateError("[inference] grpc needs an extra of this package: pip install 'autoglm-edge-agent[grpc]'")
    return _patiently(partial(_shared, *address_of(section.grpc)), section.grpc)


def address_text(bound: socket.socket) -> str:
    """Return the address of a TCP socket as a person writes it."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def endpoints(listeners: list[socket.socket], grpc: socket.socket | None = None) -> tuple[str, ...]:
    """Return the addresses as a client would write them."""
    more = () if grpc is None else (f"grpc://{address_text(grpc)}",)
    return (*(_endpoint(listener) for listener in listeners), *more)


def close_listeners(listeners: list[socket.socket]) -> None:
    """Close the sockets and remove the names of those Unix ones that are our own."""
    for listener in listeners:
        if listener.family == socket.AF_UNIX and not isinstance(listener, Inherited):
            with contextlib.suppress(OSError):
                Path(listener.getsockname()).unlink()
        listener.close()


def _named(path: Path, kind: socket.SocketKind, inherited: list[Inherited]) -> socket.socket:
    for given in inherited:
        if given.family == socket.AF_UNIX and given.type == kind and given.getsockname() == str(path):
            inherited.remove(given)
            return given
    return _patiently(partial(_unix, path, kind), str(path))


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


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it would lie in
        return False


def _shared(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound


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
    if listener.family == socket.AF_UNIX:
        return f"{'fast' if listener.type == socket.SOCK_SEQPACKET else 'unix'}:{listener.getsockname()}"
    return f"http://{address_text(listener)}"
