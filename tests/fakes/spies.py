"""A client that reads along at the broker: which blocks devices have asked for."""

from __future__ import annotations

import threading
import uuid
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.transfer import FetchRequest

FETCH_FILTER = "autoglm/v1/+/+/fetch"


class Spy:
    """Subscribed to the fetch requests of all devices; connects again by itself."""

    def __init__(self, port: int) -> None:
        self.requests: list[FetchRequest] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, f"spy-{uuid.uuid4().hex[:8]}")
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _c, _u, message: self.requests.append(
            parse(FetchRequest, bytes(message.payload))
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(20), "the spy was not let in"

    def _connected(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(FETCH_FILTER)

    @property
    def blocks(self) -> int:
        """How many blocks were asked for, each as often as it was."""
        return sum(len(request.blocks()) for request in tuple(self.requests))

    def __enter__(self) -> Spy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()
