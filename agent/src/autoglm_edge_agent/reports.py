"""Publishes the reported state: on every change, on every connection, and not more often than the fleet can use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from autoglm_edge_protocol.deployment import ReportedState
from autoglm_edge_protocol.errors import LinkError

log = logging.getLogger(__name__)

PACE_S = 0.25
"""Changes that come closer together than this, such as the progress of a download, are told together."""
RETRY_S = 2.0


class Reports:
    """Keeps the retained report up to date.

    Args:
        build: returns the present state, given the number of the report.
        send: publishes it, retained, and returns when the broker has it. Raises LinkError.
    """

    def __init__(self, build: Callable[[int], ReportedState], send: Callable[[bytes], Awaitable[None]]) -> None:
        self._build = build
        self._send = send
        self._sequence = 0
        self._news = asyncio.Event()

    def changed(self) -> None:
        """Note that there is something to tell."""
        self._news.set()

    async def run(self) -> None:
        """Publish, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            self._sequence += 1
            try:
                await self._send(self._build(self._sequence).to_bytes())
            except LinkError as error:
                log.info("the report could not be sent yet: %s", error)
                self._news.set()
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(PACE_S)
