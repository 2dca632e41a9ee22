"""The worker's end of a fast path's connection, without the worker: what is sent is taken up when the test says so."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.wire import ANSWER, ANSWER_KIND, CONTROL
from autoglm_edge_agent.inference.fast_channel import Channel
from autoglm_edge_agent.inference.fast_path import FastPath
from autoglm_edge_agent.inference.model import Model
from autoglm_edge_agent.inference.sampling import Sampler
from autoglm_edge_protocol.manifest import Manifest, Variant

ANSWER_S = 10.0


class Zeros:
    """A session that answers a row of zeros for each row of the first input."""

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs

    def run(self, inputs: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        return [np.zeros((len(inputs[0]), self._outputs), np.float32)]

    def reset(self) -> None:
        """It remembers nothing."""

    def placement(self) -> Mapping[str, int]:
        return {}


class HostedChannel:
    """A client's connection to a channel that nobody watches."""

    def __init__(self, manifest: Manifest, variant: Variant) -> None:
        self._samples = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._samples[0].setblocking(False)
        session = Zeros(variant.outputs[0].shape[-1])
        self.model = Model(manifest, variant, session, Sampler(self._samples[0]))
        self.path: FastPath = asyncio.run(self._make_path())
        self.client, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.client.settimeout(ANSWER_S)
        self.channel = Channel(theirs, self.model, self.path)
        self.path.channels.add(self.channel)

    async def _make_path(self) -> FastPath:
        return FastPath(self.model)

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> bool:
        """Send a message and have it taken up; False when that was the end of the connection."""
        socket.send_fds(self.client, [data], list(descriptors))
        return self.channel.rung()

    def control(self, message: object, descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """Send a control message and return the answer."""
        assert self.send(CONTROL + json.dumps(message).encode(), descriptors)
        answer = self.client.recv(65536)
        assert answer[:1] == CONTROL
        found: dict[str, Any] = json.loads(answer[1:])
        return found

    def answer(self) -> tuple[int, int, bytes]:
        """Return the status, the number of the request and the rest of the next answer."""
        data = self.client.recv(65536)
        assert data[:1] == ANSWER_KIND
        _, _, status, _, number = ANSWER.unpack_from(data)
        return status, number, data[ANSWER.size :]

    def __enter__(self) -> HostedChannel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        while self.channel.rung():
            pass
        self.model.engine.close()
        for each in self._samples:
            each.close()


def memory_of(size: int, *, sealed: bool = True) -> int:
    """Return the descriptor of a new shared memory."""
    import fcntl

    descriptor = os.memfd_create("tests", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    if sealed:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor
