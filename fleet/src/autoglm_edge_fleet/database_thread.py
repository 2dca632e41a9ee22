"""The database for an event loop: all work on one thread, so that a slow disk never holds up the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from autoglm_edge_fleet.database import Database

P = ParamSpec("P")
R = TypeVar("R")


class DatabaseThread:
    """Runs functions of a database one after the other."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="fleet-database")

    async def run(self, work: Callable[Concatenate[Database, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `work(database, ...)`. Raises what it raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: work(self._database, *args, **kwargs))

    def close(self) -> None:
        """Finish what was begun, and close the database."""
        self._executor.shutdown(wait=True)
        self._database.close()
