"""The worker's side of the fast path: tensors in memory that the client shares, a packet as the doorbell.

Everything but the accepting happens in the engine's thread.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from autoglm_edge_agent.inference.accepting import Acceptor
from autoglm_edge_agent.inference.fast_channel import Channel
from autoglm_edge_agent.inference.model import Model

MOST_CHANNELS = 64


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

    def left(self, channel: Channel) -> None:
        """Forget a client."""
        self.channels.discard(channel)

    def _accepted(self, accepted: socket.socket) -> None:
        if len(self.channels) >= MOST_CHANNELS:
            accepted.close()
            return
        channel = Channel(accepted, self._model, self)
        self.channels.add(channel)
        self._model.engine.watch(channel)
