"""The worker's side of the fast path: tensors in memory that the client shares, a packet as the doorbell.

Everything here happens in the engine's thread, but for the accepting. The memory must be sealed against becoming
smaller, so that no client can end the worker by it. Inputs are read where they are; integers are copied first, as a
runtime may look at an index twice.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import json
import math
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.client.wire import (
    ALIGNMENT,
    ANSWER,
    ANSWER_KIND,
    CONTROL,
    DIMENSION,
    GOODBYE,
    MESSAGE_BYTES,
    REQUEST,
    REQUEST_KIND,
    VERSION,
    aligned,
)
from autoglm_edge_agent.inference.accepting import Acceptor
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.model import Model
from autoglm_edge_agent.inference.peers import peer_of
from autoglm_edge_agent.inference.scheduler import Ticket
from autoglm_edge_agent.inference.terms import Terms, terms_of
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]

MOST_CHANNELS = 64
MOST_LAYOUTS = 64
"""Of one client."""
MOST_LAYOUTS_TOGETHER = 256
"""Of all clients: each takes a descriptor, of which a process often has no more than 1024."""
LAYOUT_BYTES = 4 * LIMITS.request_body_bytes
"""The memory of one layout."""
MOST_BYTES = 16 * LIMITS.request_body_bytes
"""The memory of all layouts of all clients."""
_REQUEST_BYTE = REQUEST_KIND[0]
_AFTER_KIND = struct.Struct(f"<{REQUEST.format[2:]}").unpack_from
_SEALS = getattr(fcntl, "F_SEAL_SHRINK", 0)
_DESCRIPTORS = socket.CMSG_SPACE(array.array("i", [0]).itemsize) if hasattr(socket, "CMSG_SPACE") else 0


class FastPath:
    """Accepts clients on packet sockets and hands them to the engine."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._acceptor = Acceptor(self._accepted)
        self.channels: set[Channel] = set()
        self._loop = asyncio.get_running_loop()

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept on non-blocking, listening sockets, which stay the caller's."""
        self._acceptor.start(listeners)

    def stop_accepting(self) -> None:
        """Leave new clients to whoever else has the sockets."""
        self._acceptor.stop()

    async def drain(self) -> None:
        """Return when what was asked is answered and every client knows that it has to connect again."""
        self.stop_accepting()
        while self.channels:
            told = self._loop.create_future()

            def tell(done: asyncio.Future[None] = told) -> None:
                for channel in list(self.channels):
                    channel.take_leave()
                self._loop.call_soon_threadsafe(done.set_result, None)

            self._model.engine.call(tell)
            await told
            await asyncio.sleep(0.002)

    @property
    def held_bytes(self) -> int:
        """The memory of all layouts of all clients."""
        return sum(channel.held_bytes for channel in tuple(self.channels))

    @property
    def layouts(self) -> int:
        """How many layouts all clients have together."""
        return sum(channel.layouts for channel in tuple(self.channels))

    def _accepted(self, accepted: socket.socket) -> None:
        if len(self.channels) >= MOST_CHANNELS:
            accepted.close()
            return
        channel = Channel(accepted, self._model, self)
        self.channels.add(channel)
        self._model.engine.watch(channel)


@dataclass
class _Layout:
    """Where the tensors of a client's requests are."""

    memory: mmap.mmap
    inputs: list[tuple[Callable[[Array], Array], Array]]
    """How each input is taken, and from where."""
    outputs: memoryview
    shapes: list[tuple[int, ...]] | None = None
    """Of the outputs that the client was told last."""
    places: list[Array] = field(default_factory=list)
    """Where outputs of these shapes go."""


class Channel:
    """One client. Is an `engine.Doorbell`."""

    def __init__(self, connection: socket.socket, model: Model, path: FastPath) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._model = model
        self._path = path
        self._client = peer_of(connection)
        self._last_asked = 0, 0
        self._last_terms = terms_of(self._client, 0, 0)
        self._layouts: dict[int, _Layout] = {}
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
            self._path.channels.discard(self)

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

        inputs = [take(place) for take, place in layout.inputs]
        terms = self._terms(priority, timeout_us)
        outcome = self._model.engine.run_at_once(inputs, terms.timeout_s)
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
            self._tickets[place] = self._model.ask(inputs, terms, done, borrowed=True)
        except RequestError as error:
            done(error)

    def _settle(self, request: int, layout: _Layout, outcome: list[Array] | RequestError, began: float) -> None:
        if isinstance(outcome, RequestError):
            status = outcome.status
            self._refuse(request, outcome)
        else:
            status = self._answer(request, layout, outcome)
        self._model.count((time.perf_counter() - began) * 1e6, status)

    def _answer(self, request: int, layout: _Layout, outputs: Sequence[Array]) -> int:
        """Put the outputs in their place and tell; return the status."""
        shapes = [output.shape for output in outputs]
        if shapes == layout.shapes:
            for place, output in zip(layout.places, outputs, strict=True):
                place[...] = output
            self._send(ANSWER.pack(ANSWER_KIND, 0, 200, 0, request))
            return 200
        need = 0
        for output in outputs:
            need = aligned(need) + output.nbytes
        if need > layout.outputs.nbytes:
            text = f"the outputs have {need} bytes, there is room for {layout.outputs.nbytes}"
            self._refuse(request, RequestError(413, text), need)
            return 413
        at = 0
        layout.shapes, layout.places = shapes, []
        for output in outputs:
            at = aligned(at)
            place = (
                np.ndarray(output.shape, output.dtype, layout.outputs, at) if output.nbytes else np.empty_like(output)
            )
            place[...] = output
            layout.places.append(place)
            at += output.nbytes
        self._send(ANSWER.pack(ANSWER_KIND, 0, 200, 0, request) + b"".join(map(_packed, shapes)))
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

    def _layout(self, message: dict[str, Any], descriptor: int) -> _Layout:
        size = _whole(message.get("bytes"), "bytes")
        if size > LAYOUT_BYTES or len(self._layouts) >= MOST_LAYOUTS:
            raise RequestError(413, f"a client has at most {MOST_LAYOUTS} layouts of at most {LAYOUT_BYTES} bytes")
        if self._path.held_bytes + size > MOST_BYTES or self._path.layouts >= MOST_LAYOUTS_TOGETHER:
            text = f"clients share {MOST_LAYOUTS_TOGETHER} layouts or {MOST_BYTES} bytes with this worker already"
            raise RequestError(503, text, retry_after_s=1.0)
        self._check_carried()
        memory = _mapped(descriptor, size)
        specs, wanted, places = self._model.variant.inputs, message.get("inputs"), message.get("outputs")
        if not isinstance(wanted, list) or len(wanted) != len(specs) or not isinstance(places, dict):
            raise RequestError(400, f"a layout has 'inputs', a list of {len(specs)}, and 'outputs'")
        inputs = [(_way(spec), _input(memory, size, spec, item)) for spec, item in zip(specs, wanted, strict=True)]
        start, room = _whole(places.get("offset"), "offset"), _whole(places.get("bytes"), "bytes")
        if start % ALIGNMENT or start + room > size:
            raise RequestError(400, f"the outputs must begin at a multiple of {ALIGNMENT} inside the memory")
        return _Layout(memory, inputs, memoryview(memory)[start : start + room])

    def _end(self) -> bool:
        self._ended = True
        for ticket in list(self._tickets.values()):  # nobody is there to be answered
            self._waiting -= self._model.engine.withdraw(ticket)
        self._tickets.clear()
        self._layouts.clear()
        self._path.channels.discard(self)
        self._connection.close()
        return False


def _mapped(descriptor: int, size: int) -> mmap.mmap:
    try:
        if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS:
            raise RequestError(400, "the memory must be sealed against becoming smaller (F_SEAL_SHRINK)")
        if size < 1 or os.fstat(descriptor).st_size < size:
            raise RequestError(400, "the memory is smaller than the layout says")
        # All of it now: a page that cannot be had later would end the process.
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    except (OSError, ValueError) as error:
        raise RequestError(400, f"the memory cannot be used: {error}") from None


def _input(memory: mmap.mmap, size: int, spec: TensorSpec, item: object) -> Array:
    shape = item.get("shape") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise RequestError(400, f"input {spec.name!r}: 'shape' must be a list of whole numbers")
    if len(shape) != len(spec.shape) or any(s not in (-1, n) for s, n in zip(spec.shape, shape, strict=True)):
        raise RequestError(400, f"input {spec.name!r}: shape {shape} does not fit {list(spec.shape)}")
    dtype, offset, count = np.dtype(DATATYPES[spec.datatype]), _whole(item.get("offset"), "offset"), math.prod(shape)
    if offset % ALIGNMENT or offset + count * dtype.itemsize > size:
        raise RequestError(400, f"input {spec.name!r} must begin at a multiple of {ALIGNMENT} inside the memory")
    if count == 0:
        # The other dimensions may still be more than numpy can count.
        if math.prod(n for n in shape if n) > LAYOUT_BYTES:
            raise RequestError(400, f"input {spec.name!r}: shape {shape} is too large")
        return np.empty(shape, dtype)
    return np.frombuffer(memory, np.uint8 if dtype.kind == "b" else dtype, count, offset).reshape(shape)


def _way(spec: TensorSpec) -> Callable[[Array], Array]:
    """Return how to take an input from its place; what could be dangerous if it changed later, as a copy."""
    if spec.datatype == "BOOL":
        return _truth
    return np.copy if np.dtype(DATATYPES[spec.datatype]).kind in "iu" else _itself


def _truth(place: Array) -> Array:
    truth: Array = place != 0
    return truth


def _itself(place: Array) -> Array:
    return place


def _whole(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise RequestError(400, f"'{what}' must be a whole number of bytes")
    return value


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _packed(shape: Sequence[int]) -> bytes:
    return bytes([len(shape)]) + b"".join(map(DIMENSION.pack, shape))


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
