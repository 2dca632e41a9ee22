"""Event loops that can watch sockets, as the MQTT link needs them: Windows' own default cannot."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end, as `asyncio.run` does."""
    if sys.platform == "win32":
        # Python 3.10 has no `Runner`, and is for devices alone, none of which runs Windows.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(main)
    else:
        return asyncio.run(main)
