"""QoS 1 publications: which wait for their turn, which are on their way, and which the broker has acknowledged.

paho's out-queue is unbounded and ignores the in-flight limit after a reconnection: no more than `IN_FLIGHT` are ever
given to it, the others wait here. One whose caller has given up keeps its place until the broker has acknowledged it,
because paho goes on sending it, with the next connection as well.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import paho.mqtt.client as paho

from autoglm_edge_protocol.errors import LinkError

IN_FLIGHT = 16


@dataclass(frozen=True, eq=False)
class Outgoing:
    """A publication and the future of its acknowledgement."""

    topic: str
    payload: bytes
    retain: bool
    done: asyncio.Future[None]


class InFlight:
    """The publications of one link.

    Args:
        publish: gives one to paho.
    """

    def __init__(self, publish: Callable[[Outgoing], paho.MQTTMessageInfo]) -> None:
        self._publish = publish
        self._waiting: deque[Outgoing] = deque()
        self._sent: dict[int, tuple[paho.MQTTMessageInfo, asyncio.Future[None]]] = {}

    def add(self, publication: Outgoing) -> None:
        """Let a publication wait for its turn."""
        self._waiting.append(publication)

    def withdraw(self, publication: Outgoing) -> None:
        """Forget a publication that nobody waits for any more, unless it is on its way."""
        if publication in self._waiting:
            self._waiting.remove(publication)

    def advance(self, connected: bool) -> None:
        """Settle what the broker has acknowledged, and send what waits, up to the limit."""
        for mid, (info, done) in list(self._sent.items()):
            if info.is_published():
                del self._sent[mid]
                if not done.done():
                    done.set_result(None)
        while connected and self._waiting and len(self._sent) < IN_FLIGHT:
            self._send(self._waiting.popleft())

    def _send(self, publication: Outgoing) -> None:
        try:
            info = self._publish(publication)
        except ValueError as error:
            publication.done.set_exception(error)
            return
        if info.rc == paho.MQTT_ERR_QUEUE_SIZE:
            publication.done.set_exception(LinkError(f"cannot publish: {paho.error_string(info.rc)}"))
            return
        info.rc = paho.MQTT_ERR_SUCCESS  # that the connection broke just now is made good by the next one
        self._sent[info.mid] = info, publication.done

    def fail(self, problem: str) -> None:
        """Give up on everything."""
        waiting = [*(done for _, done in self._sent.values()), *(publication.done for publication in self._waiting)]
        self._waiting.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(LinkError(problem))
