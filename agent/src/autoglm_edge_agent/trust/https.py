"""A repository on a web server, over HTTPS only: files by their paths, bounded in length and in time."""

from __future__ import annotations

import contextlib
import http.client
import math
import re
import socket
import threading
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlsplit

from autoglm_edge_protocol.tls import verifying_context

CONNECT_S = 20.0
"""Also how long it may be silent."""
METADATA_S = 120.0
"""How long one metadata file may take altogether, and of any other the head, and the next bytes: a server that sends
a byte a second, or headers without an end, is given up."""
_PIECE_BYTES = 64 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)")

Span = tuple[int, int]
"""Where a part of a file begins, and how many bytes it has; at least one."""


class HttpsRepository:
    """A server.

    Args:
        url: of the folder that holds `metadata/` and `objects/`; `https://` only.
        ca_file: whom to believe about the server's name; None: those whom the system believes.
    """

    def __init__(self, url: str, ca_file: Path | None = None) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self._host, self._port, self._path = parts.hostname or "", parts.port or 443, parts.path
        self._ca_file = ca_file

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """Return a file, at most one byte above `max_bytes` of it; None: there is none. Raises OSError."""
        pieces = self.stream(path, METADATA_S)
        if pieces is None:
            return None
        data = b""
        with closing(pieces):
            for piece in pieces:
                data += piece
                if len(data) > max_bytes:
                    return data[: max_bytes + 1]
        return data

    def stream(self, path: str, within_s: float, span: Span | None = None) -> Generator[bytes, None, None] | None:
        """Return a file's pieces; None: there is none (404, 403). Raises OSError, also while they are read.

        Args:
            path: below the server's folder.
            within_s: how long it may take altogether, without the time that the pieces' reader takes between them.
            span: what to ask for; None: the whole file. No byte more than that is given, but fewer may be.
        """
        # One connection each: updates are rare, and one kept open in between would have to be watched over.
        context = verifying_context(self._ca_file)
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_S, context=context)
        try:
            connection.connect()
            watchdog = _Watchdog(connection.sock, min(within_s, METADATA_S))
        except OSError as error:
            connection.close()
            raise OSError(f"cannot be read: {error}") from None
        try:
            headers = {"Accept-Encoding": "identity"}
            if span is not None:
                headers["Range"] = f"bytes={span[0]}-{span[0] + span[1] - 1}"
            connection.request("GET", f"{self._path}/{quote(path)}", headers=headers)
            response = connection.getresponse()
            watchdog.check()
        except (OSError, http.client.HTTPException) as error:
            watchdog.end()
            connection.close()
            raise OSError(f"cannot be read: {error}") from None
        if not answers(response.status, response.getheader("Content-Range"), span):
            watchdog.end()
            connection.close()
            if response.status in (403, 404):
                return None
            raise OSError(f"answers {response.status} for {path}" + (f", {span[1]} bytes at {span[0]}" if span else ""))
        return self._pieces(connection, response, watchdog, within_s, math.inf if span is None else span[1])

    def _pieces(
        self,
        connection: http.client.HTTPSConnection,
        response: http.client.HTTPResponse,
        watchdog: _Watchdog,
        within_s: float,
        left_bytes: float,
    ) -> Generator[bytes, None, None]:
        deadline = time.monotonic() + within_s
        try:
            watchdog.expect(min(METADATA_S, within_s))
            while left_bytes and (piece := response.read1(int(min(_PIECE_BYTES, left_bytes)))):
                left_bytes -= len(piece)
                watchdog.expect(math.inf)
                read_at = time.monotonic()
                yield piece
                deadline += time.monotonic() - read_at  # the reader keeps to a cap, which is not the server's fault
                if time.monotonic() > deadline:
                    raise OSError(f"sends too slowly: not done within {within_s:.0f} s")
                watchdog.expect(min(METADATA_S, deadline - time.monotonic()))
            watchdog.check()
        except http.client.HTTPException as error:
            watchdog.check()
            raise OSError(f"broke off: {error}") from None
        finally:
            watchdog.end()
            connection.close()


def answers(status: int, content_range: str | None, span: Span | None) -> bool:
    """Whether what a server sends with this status is what it was asked for. Pure.

    A server may ignore a range (RFC 9110, 14.2) and send the file from its beginning, and may send less of it where
    the file ends (14.4).
    """
    if status == 200:
        return span is None or span[0] == 0
    match = _CONTENT_RANGE.fullmatch(content_range or "")
    if status != 206 or span is None or match is None:
        return False
    first, last = int(match[1]), int(match[2])
    return first == span[0] and first <= last < span[0] + span[1]


class _Watchdog:
    """Cuts a connection on which what is expected does not come in time.

    The time limit of a socket begins anew with each byte, also of a header that has no end.
    """

    def __init__(self, connection: socket.socket, within_s: float) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + within_s
        self._over = threading.Event()
        self._has_cut = False
        self._thread = threading.Thread(target=self._watch, name="https-watchdog", daemon=True)
        self._thread.start()

    def expect(self, within_s: float) -> None:
        """Give the connection so long from now on."""
        self._deadline = time.monotonic() + within_s

    def check(self) -> None:
        """Raise OSError when the connection was cut: what was read until then may look whole."""
        if self._has_cut:
            raise OSError("sends too slowly")

    def end(self) -> None:
        """Watch no longer."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while (left_s := self._deadline - time.monotonic()) > 0:
            if self._over.wait(min(left_s, 1.0)):
                return
        self._has_cut = True
        with contextlib.suppress(OSError):
            # Not that of an SSL socket, which would take the encryption off under the reader's hands.
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
