"""The serving worker's side of shadowing: hands a share of the live inputs on, and never waits for anybody.

A thread of the lowest priority copies and sends; while it is busy, or while the shadow still has enough to do, samples
are dropped. What the answer to a request costs is one comparison of numbers.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from autoglm_edge_agent.inference import samples

Array = npt.NDArray[Any]

ON_THE_WAY = 2
"""Samples that the shadow may have and not be done with."""
FORGOTTEN_S = 10.0
"""After so long without a word those on the way are taken for lost: a shadow that died says nothing."""
_LOWEST_PRIORITY = 19


class Sampler:
    """Sends samples on a socket that is the caller's.

    `rate` is the share of inputs to hand on, 0 to 1; 0 until told otherwise.
    """

    def __init__(self, outlet: socket.socket) -> None:
        self.rate = 0.0
        self._outlet = outlet
        self._outlet.setblocking(False)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "samples", initializer=_step_back)
        self._busy = False
        self._on_the_way = 0
        self._sent_at = 0.0

    def wants(self) -> bool:
        """Whether the next input and its answer are to be a sample. Called from one thread only."""
        return not self._busy and random.random() < self.rate  # noqa: S311 - which inputs are looked at is no secret

    def hand_on(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Take a sample that is wanted. Returns at once; the arrays must not change any more."""
        self._busy = True
        self._thread.submit(self._hand_on, inputs, outputs)

    def _hand_on(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        try:
            if self._has_room() and samples.fits((*inputs, *outputs)):
                with contextlib.suppress(OSError):  # nobody there, or no memory: it was only a sample
                    samples.send(self._outlet, inputs, outputs)
                    self._on_the_way += 1
                    self._sent_at = time.monotonic()
        finally:
            self._busy = False

    def _has_room(self) -> bool:
        with contextlib.suppress(OSError):
            while self._outlet.recv(1):
                self._on_the_way = max(0, self._on_the_way - 1)
        if time.monotonic() - self._sent_at > FORGOTTEN_S:
            self._on_the_way = 0
        return self._on_the_way < ON_THE_WAY


def _step_back() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
