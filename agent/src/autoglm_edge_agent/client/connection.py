"""The connection to the worker, through which slots are asked."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.datatypes import TensorInfo
from autoglm_edge_agent.client.slot import Slot
from autoglm_edge_agent.client.vigil import Vigil, spare_processors
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

Array = npt.NDArray[Any]

RETRY_PAUSE_S = 0.01
LONGEST_AWAKE_S = 1e-3
"""An answer that takes longer is slept through; the first half of what is expected is slept in any case."""


class InferenceRefused(Exception):
    """The worker answered an error; `status` is as in HTTP, 503 and 504 may be tried again later."""

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class _Gone(Exception):
    """The connection ended before the answer came."""


class Client:
    """Asks the model that is served on a fast path's socket. For one thread at a time.

    Args:
        path: the socket, `inference.fast` beside the agent's `inference.sock`.
        retry_s: for how long to try again when the worker goes away or is not there yet; 0: an error at once.
        timeout_s: how long to wait for any answer.

    Raises ConnectionError when nobody serves there within `retry_s`, InferenceRefused for a model that the fast path
    does not carry (text tensors).
    """

    def __init__(self, path: str | os.PathLike[str], retry_s: float = 30.0, timeout_s: float = 120.0) -> None:
        self._path = os.fspath(path)
        self._retry_s = retry_s
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._slots: dict[int, Slot] = {}
        self._next_slot = 0
        self._numbers = 0
        self._generation = 0
        self._mine: Slot | None = None
        self._vigil = Vigil(possible=spare_processors(), longest_s=LONGEST_AWAKE_S)
        self.model = self.version = self.variant = ""
        self.inputs: tuple[TensorInfo, ...] = ()
        self.outputs: tuple[TensorInfo, ...] = ()
        self._connected(time.monotonic() + retry_s)

    def infer(
        self,
        inputs: Mapping[str, npt.ArrayLike],
        *,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        """Run the model once: copies the inputs in and the outputs out. Raises as `Slot.run`."""
        self._check_names(inputs)
        if missing := [info.name for info in self.inputs if info.name not in inputs]:
            raise ValueError(f"the input {missing[0]!r} is missing")
        arrays = {info.name: np.asarray(inputs[info.name], info.dtype) for info in self.inputs}
        shapes = {name: array.shape for name, array in arrays.items()}
        slot = self._mine
        if slot is None or slot.shapes != shapes or slot.model_inputs != self.inputs:
            if slot is not None:
                slot.close()
            slot = self._mine = self.slot(shapes)
        for name, array in arrays.items():
            slot.inputs[name][...] = array
        slot.run(priority=priority, timeout_s=timeout_s)
        return {name: array.copy() for name, array in slot.outputs.items()}

    def slot(self, shapes: Mapping[str, Sequence[int]] | None = None, output_bytes: int | None = None) -> Slot:
        """Return memory for the tensors of one request at a time.

        Args:
            shapes: of the inputs; those of the model where a name is left out, which must then have no free dimension.
            output_bytes: room for all outputs; estimated when left out, and enlarged when an answer needs more.
        """
        self._check_names(shapes or {})
        whole = {info.name: tuple((shapes or {}).get(info.name, info.shape)) for info in self.inputs}
        for info in self.inputs:
            if any(n < 0 for n in whole[info.name]):
                raise ValueError(f"give the shape of {info.name!r}: the model's {info.shape} leaves dimensions free")
        self._next_slot += 1
        slot = Slot(self, self._next_slot % 65536, whole, output_bytes)
        self._slots[slot.number] = slot
        return slot

    def close(self) -> None:
        """End the connection and give the memory back."""
        for slot in list(self._slots.values()):
            slot.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_names(self, given: Mapping[str, object]) -> None:
        known = [info.name for info in self.inputs]
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"the model has no input {unknown[0]!r}; it has {known}")

    # what slots need ----

    def forget(self, slot: Slot) -> None:
        """Tell that a slot is closed."""
        self._slots.pop(slot.number, None)
        if self._socket is not None and slot.known_to == self._generation:
            with contextlib.suppress(OSError, _Gone, InferenceRefused):
                self._control(self._socket, {"op": "forget", "layout": slot.number})

    def ask(self, slot: Slot, priority: int, timeout_s: float | None) -> bytes:
        """Ask and return what follows the head of the answer. Raises InferenceRefused, ConnectionError."""
        until = 0.0
        while True:
            connection = self._socket or self._connected(until or time.monotonic() + self._retry_s)
            try:
                if slot.known_to != self._generation:
                    self._introduce(connection, slot)
                return self._asked(connection, slot, priority, timeout_s)
            except (_Gone, BrokenPipeError, ConnectionResetError) as error:
                self._drop()
                until = until or time.monotonic() + self._retry_s
                if time.monotonic() >= until:
                    raise ConnectionError(f"the worker on {self._path} went away before it answered") from error
            except TimeoutError:
                self._drop()
                raise

    def _asked(self, connection: socket.socket, slot: Slot, priority: int, timeout_s: float | None) -> bytes:
        self._numbers += 1
        timeout_us = 0 if timeout_s is None else max(1, int(timeout_s * 1e6))
        connection.send(REQUEST.pack(REQUEST_KIND, priority, slot.number, 0, self._numbers, timeout_us))
        while True:
            message = self._receive(connection)
            if len(message) < ANSWER.size:
                continue
            kind, _, status, more, number = ANSWER.unpack_from(message)
            if kind != ANSWER_KIND or number != self._numbers:
                continue
            rest = message[ANSWER.size :]
            if status == 200:
                return rest
            if status == 413 and more > slot.output_bytes:
                slot.enlarge(more)
                self._introduce(connection, slot)
                return self._asked(connection, slot, priority, timeout_s)
            raise InferenceRefused(status, rest.decode("utf-8", "replace"), more / 1000 if status == 503 else None)

    def _introduce(self, connection: socket.socket, slot: Slot) -> None:
        """Tell a worker that does not know it where a slot's tensors are."""
        if slot.model_inputs != self.inputs:
            text = "the model that is served now has other inputs than the one this slot was made for: take a new slot"
            raise InferenceRefused(400, text)
        self._control(connection, slot.described(), [slot.descriptor])
        slot.known_to = self._generation

    def _control(self, connection: socket.socket, message: object, descriptors: Sequence[int] = ()) -> dict[str, Any]:
        data = CONTROL + json.dumps(message).encode()
        if descriptors:
            socket.send_fds(connection, [data], list(descriptors))
        else:
            connection.send(data)
        while True:
            answer = self._receive(connection)
            if answer[:1] == CONTROL:
                break
        found: dict[str, Any] = json.loads(answer[1:])
        if "error" in found:
            raise InferenceRefused(int(found.get("status", 400)), str(found["error"]))
        return found

    def _receive(self, connection: socket.socket) -> bytes:
        now = time.perf_counter()
        until = self._vigil.begin(now)
        message = None
        if now < until and (nap_s := self._vigil.nap_s):
            time.sleep(nap_s)
        while message is None and time.perf_counter() < until:
            try:
                message = connection.recv(MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                os.sched_yield()
        try:
            if message is None:
                message = connection.recv(MESSAGE_BYTES)
        except BlockingIOError:  # what the kernel's own limit of time looks like
            raise TimeoutError(f"no answer from {self._path} within {self._timeout_s:.0f} s") from None
        self._vigil.end(time.perf_counter())
        if not message or message[:1] == GOODBYE:
            raise _Gone
        return message

    def _connected(self, until: float) -> socket.socket:
        while self._socket is None:
            try:
                self._connect()
            except (OSError, _Gone) as error:
                if time.monotonic() >= until:
                    raise ConnectionError(f"nobody serves on {self._path}: {error}") from error
                time.sleep(RETRY_PAUSE_S)
        return self._socket

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # Limits of time in the kernel: a call with Python's own would cost a second system call.
            limit = struct.pack("ll", int(self._timeout_s), int(self._timeout_s % 1 * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            connection.connect(self._path)
            told = self._control(connection, {"op": "hello", "version": VERSION})
        except BaseException:
            connection.close()
            raise
        self.model, self.version, self.variant = told["model"], told["version"], told["variant"]
        self.inputs, self.outputs = (
            tuple(TensorInfo(item["name"], item["datatype"], tuple(item["shape"])) for item in told[key])
            for key in ("inputs", "outputs")
        )
        self._generation += 1
        self._socket = connection

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
