"""A client that reads along at the broker: which blocks devices have asked for."""

from __future__ import annotations

import threading
import time
import uuid
from itertools import pairwise
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
        self.times: list[float] = []
        """When each of them came, in monotonic seconds."""
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, f"spy-{uuid.uuid4().hex[:8]}")
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(20), "the spy was not let in"

    def _connected(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(FETCH_FILTER)

    def _take(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        self.times.append(time.monotonic())
        self.requests.append(parse(FetchRequest, bytes(message.payload)))

    def publish(self, topic: str, count: int) -> None:
        """Publish messages at QoS 1 that say nothing, and wait until the broker has them."""
        for info in [self._client.publish(topic, b"{}", qos=1) for _ in range(count)]:
            info.wait_for_publish(20)

    def silences_s(self, first: int, longer_than_s: float) -> list[float]:
        """Return the pauses of so many seconds between requests, from the request of this number on."""
        times = self.times[first:]
        return [gap for gap in (after - before for before, after in pairwise(times)) if gap > longer_than_s]

    @property
    def blocks(self) -> int:
        """How many blocks were asked for, each as often as it was."""
        return sum(len(request.blocks()) for request in tuple(self.requests))

    def __enter__(self) -> Spy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()
