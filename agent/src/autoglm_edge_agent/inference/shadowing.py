"""The agent's side of shadowing: keeps the previous model running beside the serving one while a probation lasts.

The socket pair on which samples travel lives as long as the agent, so that either worker may die and be replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import psutil

from autoglm_edge_agent.cancellation import cancel
from autoglm_edge_agent.errors import WorkerError
from autoglm_edge_agent.inference.control import Beat, ShadowOrder
from autoglm_edge_agent.inference.process import WorkerProcess
from autoglm_edge_protocol.deployment import Installed
from autoglm_edge_protocol.probation import ShadowTerms

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""A shadow that fails so often is given up: what it would have found is unknown, and no reason to go back."""
RETRY_S = 5.0
LEAST_FREE_BYTES = 96 * 1024 * 1024
"""Of memory, to start a shadow and to let it run on: it must never be what makes the serving worker fail."""
LOOK_S = 1.0
START_TIMEOUT_S = 120.0


class Shadowing:
    """Owns the shadow's process and the channel to it. `on_beat` is told what the shadow found."""

    def __init__(self, bundle_path: Callable[[Installed], Path], run_timeout_s: float) -> None:
        self._bundle_path = bundle_path
        self._run_timeout_s = run_timeout_s
        self.outlet, self._inlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        """The serving worker's end, to be inherited by it."""
        self.on_beat: Callable[[Beat], None] = lambda _beat: None
        self._task: asyncio.Task[None] | None = None

    def start(self, previous: Installed, current: Installed, terms: ShadowTerms) -> None:
        """Run `previous` on samples of what `current` is asked, until `stop`."""
        self._task = asyncio.create_task(self._keep(previous, current, terms))

    async def stop(self) -> None:
        """End the shadow and forget what waits for it."""
        task, self._task = self._task, None
        if task is not None:
            await cancel(task)
        self._clear()

    def close(self) -> None:
        """Give the channel up."""
        self.outlet.close()
        self._inlet.close()

    async def _keep(self, previous: Installed, current: Installed, terms: ShadowTerms) -> None:
        place = self._bundle_path(current)
        order = ShadowOrder(bundle=place, variant=current.variant, min_sqnr_db=terms.min_sqnr_db)
        for _ in range(ATTEMPTS):
            if _free_bytes() >= LEAST_FREE_BYTES:
                await self._run(previous, order)
            else:
                log.warning("too little memory is free for a shadow")
            await asyncio.sleep(RETRY_S)
        log.warning("%s cannot run as a shadow; nothing more is compared", previous.bundle.id)

    async def _run(self, previous: Installed, order: ShadowOrder) -> None:
        self._clear()
        worker = WorkerProcess(previous, lambda _, beat: self.on_beat(beat), self._run_timeout_s)
        try:
            await worker.start(self._bundle_path(previous), [], self._inlet, shadow=order, timeout_s=START_TIMEOUT_S)
            log.info("%s runs as a shadow", previous.bundle.id)
            while not (await asyncio.wait({worker.ended}, timeout=LOOK_S))[0]:
                if _free_bytes() < LEAST_FREE_BYTES:
                    log.warning("memory becomes scarce: the shadow is ended")
                    return
            log.warning("the shadow ended: %s", worker.ended.result().message)
        except WorkerError as error:
            log.warning("the shadow did not start: %s", error)
        finally:
            await worker.kill()

    def _clear(self) -> None:
        """Drop the samples that wait for a shadow that is gone."""
        self._inlet.setblocking(False)  # each time: the shadow, which shares the flag, has set it back
        with contextlib.suppress(OSError):
            while True:
                _, descriptors, _, _ = socket.recv_fds(self._inlet, 1, 1)
                for descriptor in descriptors:
                    os.close(descriptor)


def _free_bytes() -> int:
    return int(psutil.virtual_memory().available)
