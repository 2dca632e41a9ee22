"""The shadow: a worker that runs the previous model on samples of the live inputs, compares, and answers nobody.

It has the lowest priority and rests as long as it worked, so that it takes half of one core where nobody else wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import psutil

from autoglm_edge_agent.inference import samples
from autoglm_edge_agent.inference.backends import Session
from autoglm_edge_agent.inference.control import BEAT_S, LINE_BYTES, Beat, FromWorker, ShadowOrder, to_line
from autoglm_edge_agent.inference.disagreement import Comparison
from autoglm_edge_agent.inference.errors import ModelUnusable
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.manifest import Variant

LOWEST_PRIORITY = 19


class Shadow:
    """Compares until the agent ends it. Raises ModelUnusable when the two models cannot be compared."""

    def __init__(self, order: ShadowOrder, variant: Variant, session: Session, inlet: socket.socket) -> None:
        serving = read_manifest(order.bundle).variant(order.variant)
        if serving is None:
            raise ModelUnusable(f"the serving bundle has no variant {order.variant}")
        if variant.states or serving.states:
            raise ModelUnusable("a model that remembers cannot be compared on samples of what it is asked")
        self._order_of_inputs = _matching([i.name for i in variant.inputs], [i.name for i in serving.inputs])
        self._comparison = Comparison(variant, serving, order.min_sqnr_db)
        if not self._comparison.outputs:
            raise ModelUnusable("the two models have no output in common")
        self._session = session
        self._inlet = inlet
        self._lock = threading.Lock()
        self._compared = 0
        self._differed = 0.0

    async def run(self, control: socket.socket) -> None:
        """Compare until the control connection ends or says so."""
        reader, writer = await asyncio.open_connection(sock=control, limit=LINE_BYTES)
        writer.write(to_line(FromWorker(event="ready")))
        threading.Thread(target=self._compare_all, daemon=True).start()
        beats = asyncio.create_task(self._beat(writer))
        try:
            await reader.readline()  # whatever it is: there is only one thing to tell a shadow
        finally:
            beats.cancel()
            with contextlib.suppress(OSError):
                writer.close()

    async def _beat(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            with self._lock:
                compared, differed = self._compared, self._differed
                self._compared, self._differed = 0, 0.0
            beat = Beat(compared=compared, differed=differed, rss_bytes=psutil.Process().memory_info().rss)
            writer.write(to_line(FromWorker(event="beat", beat=beat)))

    def _compare_all(self) -> None:
        self._inlet.setblocking(True)
        while True:
            sample = samples.receive(self._inlet)
            began = time.monotonic()
            if sample is not None:
                self._compare(*sample)
            time.sleep(time.monotonic() - began)
            with contextlib.suppress(OSError):
                self._inlet.send(samples.DONE, socket.MSG_DONTWAIT)

    def _compare(self, inputs: list[samples.Array], new: list[samples.Array]) -> None:
        try:
            old = self._session.run([inputs[i] for i in self._order_of_inputs])
            difference = self._comparison.difference(old, new)
        except (ValueError, IndexError):
            return  # an input that the previous model does not take is no disagreement
        with self._lock:
            self._compared += 1
            self._differed += difference


def _matching(ours: list[str], theirs: list[str]) -> list[int]:
    if sorted(ours) != sorted(theirs):
        raise ModelUnusable(f"the previous model takes {', '.join(ours)}, the serving one {', '.join(theirs)}")
    return [theirs.index(name) for name in ours]
