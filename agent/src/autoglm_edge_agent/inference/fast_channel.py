"""One client of the fast path: its requests, and what it tells of its memory. In the engine's thread, all of it."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from autoglm_edge_agent.client.wire import (
    ANSWER,
    ANSWER_KIND,
    CONTROL,
    GOODBYE,
    MESSAGE_BYTES,
    REQUEST,
    REQUEST_KIND,
    VERSION,
)
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.fast_layouts import LAYOUT_BYTES, Layout, NoRoom, read_layout, whole
from autoglm_edge_agent.inference.model import Model
from autoglm_edge_agent.inference.peers import peer_of
from autoglm_edge_agent.inference.scheduler import Ticket
from autoglm_edge_agent.inference.terms import Terms, terms_of
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]

MOST_LAYOUTS = 64
"""Of one client."""
MOST_LAYOUTS_TOGETHER = 256
"""Of all clients: each takes a descriptor, of which a process often has no more than 1024."""
MOST_BYTES = 16 * LIMITS.request_body_bytes
"""The memory of all layouts of all clients."""
_REQUEST_BYTE = REQUEST_KIND[0]
_AFTER_KIND = struct.Struct(f"<{REQUEST.format[2:]}").unpack_from
_DESCRIPTORS = socket.CMSG_SPACE(array.array("i", [0]).itemsize) if hasattr(socket, "CMSG_SPACE") else 0


class Channels(Protocol):
    """All clients together."""

    @property
    def held_bytes(self) -> int:
        """The memory of all layouts."""

    @property
    def layouts(self) -> int:
        """How many layouts there are."""

    def left(self, channel: Channel) -> None:
        """Forget a client."""


class Channel:
    """One client. Is an `engine.Doorbell`."""

    def __init__(self, connection: socket.socket, model: Model, path: Channels) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._model = model
        self._path = path
        self._client = peer_of(connection)
        self._last_asked = 0, 0
        self._last_terms = terms_of(self._client, 0, 0)
        self._layouts: dict[int, Layout] = {}
        self._message = bytearray(MESSAGE_BYTES)
        self._waiting = 0
        self._asked = 0
        self._tickets: dict[int, Ticket] = {}
        """What waits for the model or runs, by the count of requests before it."""
        self._leaving = False
        self._ended = False

    @property
    def held_bytes(self) -> int:
        """The memory of all its layouts."""
        return sum(len(layout.memory) for layout in tuple(self._layouts.values()))

    @property
    def layouts(self) -> int:
        """How many layouts it has."""
        return len(self._layouts)

    def fileno(self) -> int:
        """See `Doorbell`."""
        return self._connection.fileno()

    def rung(self) -> bool:
        """See `Doorbell`."""
        if self._ended:
            return False
        try:
            count, ancillary, flags, _ = self._connection.recvmsg_into([self._message], _DESCRIPTORS)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return self._end()
        if count == REQUEST.size and not ancillary and self._message[0] == _REQUEST_BYTE:
            self._request(*_AFTER_KIND(self._message, 1))
        else:
            self._other(count, flags, _descriptors(ancillary))
        return not self._ended

    def _other(self, count: int, flags: int, descriptors: list[int]) -> None:
        try:
            if count and not flags & socket.MSG_TRUNC and self._message[:1] == CONTROL:
                self._control(bytes(self._message[1:count]), descriptors)
            else:
                self._end()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def take_leave(self) -> None:
        """Answer what was asked already, then say goodbye and end."""
        if not self._leaving:
            self._leaving = True
            while not self._ended and self._has_more():
                self.rung()
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self._leaving and not self._waiting and not self._ended:
            with contextlib.suppress(OSError):
                self._connection.send(GOODBYE)
                # Ends what the engine watches; what the client sent meanwhile it sends again elsewhere.
                self._connection.shutdown(socket.SHUT_RDWR)
            self._path.left(self)

    def _has_more(self) -> bool:
        try:
            return bool(self._connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    # requests ----

    def _request(self, priority: int, number: int, _zero: int, request: int, timeout_us: int) -> None:
        began = time.perf_counter()
        layout = self._layouts.get(number)
        if layout is None:
            self._refuse(request, RequestError(400, f"layout {number} is unknown"))
            return
        inputs = layout.take()
        terms = self._terms(priority, timeout_us)
        outcome = self._model.engine.run_at_once(inputs, layout.bound, terms.timeout_s)
        if outcome is not None:
            self._settle(request, layout, outcome, began)
            return

        def done(outcome: list[Array] | RequestError) -> None:
            self._waiting -= 1
            self._tickets.pop(place, None)
            self._settle(request, layout, outcome, began)
            self._leave_if_done()

        self._waiting += 1
        self._asked += 1
        place = self._asked  # a number and not the ticket: the two would keep each other, and the memory of the layout
        try:
            self._tickets[place] = self._model.ask(inputs, terms, done, borrowed=True, bound=layout.bound)
        except RequestError as error:
            done(error)

    def _settle(self, request: int, layout: Layout, outcome: list[Array] | RequestError, began: float) -> None:
        if isinstance(outcome, RequestError):
            status = outcome.status
            self._refuse(request, outcome)
        else:
            status = self._answer(request, layout, outcome)
        self._model.count((time.perf_counter() - began) * 1e6, status)

    def _answer(self, request: int, layout: Layout, outputs: Sequence[Array]) -> int:
        """Put the outputs in their place and tell; return the status."""
        try:
            shapes = layout.put(outputs)
        except NoRoom as problem:
            self._refuse(request, RequestError(413, str(problem)), problem.needed_bytes)
            return 413
        self._send(ANSWER.pack(ANSWER_KIND, 0, 200, 0, request) + shapes)
        if shapes and self._model.bind is not None:
            layout.bind(self._model.bind)
        return 200

    def _terms(self, priority: int, timeout_us: int) -> Terms:
        if (priority, timeout_us) != self._last_asked:
            self._last_asked = priority, timeout_us
            self._last_terms = terms_of(self._client, priority, timeout_us)
        return self._last_terms

    def _refuse(self, request: int, error: RequestError, number: int = 0) -> None:
        if error.retry_after_s is not None:
            number = min(2**32 - 1, max(1, int(error.retry_after_s * 1000)))
        self._send(ANSWER.pack(ANSWER_KIND, 0, error.status, number, request) + str(error).encode()[:4096])

    def _send(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            self._connection.send(data)
        except OSError:
            # A client that has gone, or that asks and does not read its answers.
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    # control ----

    def _control(self, data: bytes, descriptors: list[int]) -> None:
        try:
            message = json.loads(data)
            if not isinstance(message, dict):
                raise RequestError(400, "a control message is a JSON object")
            answer = self._controlled(message, descriptors)
        except RequestError as error:
            answer = {"error": str(error)[:500], "status": error.status}
        except (ValueError, RecursionError) as error:
            answer = {"error": f"not JSON: {error}"[:500], "status": 400}
        self._send(CONTROL + json.dumps(answer).encode())

    def _controlled(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        operation = message.get("op")
        if operation == "hello":
            return self._hello(message)
        number = message.get("layout")
        if type(number) is not int or not 0 <= number < 65536:
            raise RequestError(400, "'layout' must be a number of at most 16 bits")
        if operation == "layout":
            if len(descriptors) != 1:
                raise RequestError(400, "a layout comes with the descriptor of its memory")
            self._layouts.pop(number, None)
            self._layouts[number] = self._layout(message, descriptors[0])
            return {"layout": number}
        if operation == "forget":
            self._layouts.pop(number, None)
            return {"layout": number}
        raise RequestError(400, f"the operation {operation!r} is unknown; hello, layout and forget are")

    def _hello(self, message: dict[str, Any]) -> dict[str, Any]:
        if message.get("version") != VERSION:
            raise RequestError(400, f"version {message.get('version')!r} is unknown here, {VERSION} is")
        self._check_carried()
        manifest, variant = self._model.manifest, self._model.variant
        return {
            "version": manifest.version,
            "model": manifest.name,
            "variant": variant.id,
            "inputs": [_described(spec) for spec in variant.inputs],
            "outputs": [_described(spec) for spec in variant.outputs],
        }

    def _check_carried(self) -> None:
        variant = self._model.variant
        if any(spec.datatype == "BYTES" for spec in (*variant.inputs, *variant.outputs)):
            raise RequestError(400, "the fast path carries no text tensors: use HTTP")

    def _layout(self, message: dict[str, Any], descriptor: int) -> Layout:
        size = whole(message.get("bytes"), "bytes")
        if size > LAYOUT_BYTES or len(self._layouts) >= MOST_LAYOUTS:
            raise RequestError(413, f"a client has at most {MOST_LAYOUTS} layouts of at most {LAYOUT_BYTES} bytes")
        if self._path.held_bytes + size > MOST_BYTES or self._path.layouts >= MOST_LAYOUTS_TOGETHER:
            text = f"clients share {MOST_LAYOUTS_TOGETHER} layouts or {MOST_BYTES} bytes with this worker already"
            raise RequestError(503, text, retry_after_s=1.0)
        self._check_carried()
        return read_layout(message, size, descriptor, self._model.variant.inputs)

    def _end(self) -> bool:
        self._ended = True
        for ticket in list(self._tickets.values()):  # nobody is there to be answered
            self._waiting -= self._model.engine.withdraw(ticket)
        self._tickets.clear()
        self._layouts.clear()
        self._path.left(self)
        self._connection.close()
        return False


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
