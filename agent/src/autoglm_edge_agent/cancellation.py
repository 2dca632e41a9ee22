"""Ending tasks and threads for certain.

A task can lose its cancellation: `asyncio.wait_for` of Python 3.10 and 3.11 returns the result, and no more, when what
it waits for is done in the same moment (CPython issue 86296). A thread cannot be cancelled at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

AGAIN_S = 1.0


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and return when all have ended, however they did; one that lost its cancellation gets another.

    The tasks' exceptions are the caller's to look at.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        pending = (await asyncio.wait(pending, timeout=AGAIN_S))[1]


async def in_thread(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function in a thread. When cancelled, wait for its end first: nothing goes on behind the caller's back.

    Raises what the function raises.
    """
    return await in_stoppable_thread(threading.Event(), function, *arguments, **named)


async def in_stoppable_thread(
    stop: threading.Event, function: Callable[P, T], *arguments: P.args, **named: P.kwargs
) -> T:
    """Do as `in_thread`, for a function that ends soon after `stop` is set: that is done when this is cancelled."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({work})
        if not work.cancelled():
            work.exception()  # looked at, so that it is no warning
        raise
