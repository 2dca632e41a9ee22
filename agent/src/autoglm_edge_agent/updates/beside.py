"""Taking what a file lacks from beside the fleet, chunk by chunk: from each source what those before it had not.

Which ranges are asked for is decided in `runs`; what a source is, a folder or a web server, is its own business
(`trust.depots`). What no source has is left to the fleet.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing
from typing import Protocol

from autoglm_edge_agent.cancellation import in_stoppable_thread
from autoglm_edge_agent.errors import Hindrance
from autoglm_edge_agent.updates.allowance import Allowance
from autoglm_edge_agent.updates.partial import PartialFile
from autoglm_edge_agent.updates.policy import SourceName, TransferPolicy
from autoglm_edge_agent.updates.runs import Run, missing_runs

log = logging.getLogger(__name__)

MOST_FAULTS = 8
"""Chunks of a file that a folder could not read, or that a server sent wrong, after which it is left alone: a dying
card takes its time over each, and what a server sends is paid for."""
PIECE_BYTES = 64 * 1024
"""What may be read of a server at a time, as one block of the fleet's."""


class Depot(Protocol):
    """Files by their SHA-256."""

    kind: SourceName
    """Its name in `[transfer] sources`."""
    is_remote: bool
    """Whether what it gives has come over a network."""

    def read(self, sha256: str, offset: int, size_bytes: int) -> Generator[bytes, None, None]:
        """Give these bytes of a file, in pieces of at most `PIECE_BYTES`; fewer where the file ends.

        Raises OSError at any piece; FileNotFoundError when it has no such file.
        """


class Beside:
    """All sources but the fleet.

    Args:
        depots: returns those that may be asked now.
        policy: which of them are asked, in what order, and when and how fast what comes over a network may come.
        on_progress: told how many bytes of a file (SHA-256, bytes) are in place and verified.
        on_found: told the same of what did not come over a network (SHA-256, bytes of it, bytes in place and verified).
    """

    def __init__(
        self,
        depots: Callable[[], list[Depot]],
        policy: TransferPolicy,
        on_progress: Callable[[str, int], None],
        on_found: Callable[[str, int, int], None],
    ) -> None:
        self._depots = depots
        self._policy = policy
        self._on_progress = on_progress
        self._on_found = on_found

    async def take(self, partial: PartialFile, verified: Collection[int], allowance: Allowance) -> set[int]:
        """Write into a partial file what the sources have of it; returns the chunks that are in place now.

        Raises:
            Hindrance: something is missing still, and the fleet is not to be asked (`no-source`, `quiet-hours`).
            OSError: from the disk.
        """
        file, here = partial.file, set(verified)
        here_bytes = sum(file.chunks[chunk].size_bytes for chunk in here)
        self._on_progress(file.sha256, here_bytes)
        hindrance = Hindrance("no-source", f"no source has all of {file.sha256[:12]}")
        for depot in self._in_order():
            if len(here) == len(file.chunks):
                break
            try:
                await self._take_from(depot, partial, here, allowance)
            except Hindrance as met:
                hindrance = met
        if len(here) < len(file.chunks) and "fleet" not in self._policy.sources:
            raise hindrance
        return here

    def _in_order(self) -> list[Depot]:
        order = self._policy.sources
        return sorted((each for each in self._depots() if each.kind in order), key=lambda each: order.index(each.kind))

    async def _take_from(self, depot: Depot, partial: PartialFile, here: set[int], allowance: Allowance) -> None:
        file, loop = partial.file, asyncio.get_running_loop()
        verified_bytes = sum(file.chunks[chunk].size_bytes for chunk in here)

        def arrived(chunk: int) -> None:
            nonlocal verified_bytes
            here.add(chunk)
            verified_bytes += file.chunks[chunk].size_bytes
            if depot.is_remote:
                loop.call_soon_threadsafe(self._on_progress, file.sha256, verified_bytes)
            else:
                found_bytes = file.chunks[chunk].size_bytes
                loop.call_soon_threadsafe(self._on_found, file.sha256, found_bytes, verified_bytes)

        stop = threading.Event()
        taking = _Taking(depot, partial, frozenset(here), _Pace(self._policy, allowance, stop), arrived)
        await in_stoppable_thread(stop, taking.run)


class _Broken(Exception):
    """The source did not give a piece."""


class _Stopped(Exception):
    """The download was cancelled."""


class _Pace:
    """When the next piece may be asked for."""

    def __init__(self, policy: TransferPolicy, allowance: Allowance, stop: threading.Event) -> None:
        self._policy = policy
        self._allowance = allowance
        self._stop = stop

    def wait(self, is_remote: bool) -> None:
        """Return when a piece may be read. Raises Hindrance (`quiet-hours`), _Stopped."""
        if is_remote:
            self._policy.check_hours()
            while self._allowance.blocks(PIECE_BYTES, time.monotonic()) == 0:
                self._policy.check_hours()
                if self._stop.wait(min(1.0, max(0.01, self._allowance.wait_s(PIECE_BYTES)))):
                    break
        if self._stop.is_set():
            raise _Stopped

    def spend(self, size_bytes: int, is_remote: bool) -> None:
        """Note what has come."""
        if is_remote:
            self._allowance.spend(size_bytes)


class _Taking:
    """What one source gives of one file; in a thread."""

    def __init__(
        self,
        depot: Depot,
        partial: PartialFile,
        here: frozenset[int],
        pace: _Pace,
        arrived: Callable[[int], None],
    ) -> None:
        self._depot = depot
        self._partial = partial
        self._past = set(here)
        """Chunks that are here, or that this source is not asked for again."""
        self._pace = pace
        self._arrived = arrived
        self._wrong, self._broken = 0, 0

    def run(self) -> None:
        """Take what there is. Raises Hindrance (`quiet-hours`), OSError from the disk."""
        sha256 = self._partial.file.sha256
        while runs := missing_runs(self._partial.file, self._past):
            try:
                self._take(runs)
            except _Stopped:
                return
            except _Broken as error:
                log.log(
                    logging.INFO if isinstance(error.__cause__, FileNotFoundError) else logging.WARNING,
                    "%s of %s: %s",
                    self._depot.kind,
                    sha256[:12],
                    error,
                )
                self._broken += 1
                if self._is_hopeless(error):
                    return
                # A place that cannot be read says nothing about the next one.
                self._past.add(next(chunk for run in runs for chunk in run.chunks if chunk not in self._past))

    def _is_hopeless(self, error: _Broken) -> bool:
        gone = error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError)
        return self._depot.is_remote or gone or self._broken >= MOST_FAULTS

    def _take(self, runs: list[Run]) -> None:
        for run in runs:
            with closing(self._depot.read(self._partial.file.sha256, run.offset, run.size_bytes)) as pieces:
                for chunk, is_right in self._chunks(run, pieces):
                    self._past.add(chunk)
                    if is_right:
                        self._arrived(chunk)
                    else:
                        self._refuse(chunk)

    def _refuse(self, chunk: int) -> None:
        log.warning("%s of %s: chunk %d is wrong", self._depot.kind, self._partial.file.sha256[:12], chunk)
        self._wrong += 1
        if self._depot.is_remote and self._wrong >= MOST_FAULTS:
            raise _Broken(f"{self._wrong} chunks were wrong")

    def _chunks(self, run: Run, pieces: Iterator[bytes]) -> Iterator[tuple[int, bool]]:
        """Write the chunks of a run as they come; yields each with whether it is right. Raises what `_next` does."""
        offset, piece = run.offset, memoryview(b"")
        for number in run.chunks:
            chunk, digest = self._partial.file.chunks[number], hashlib.sha256()
            left_bytes = chunk.size_bytes
            while left_bytes:
                piece = piece or memoryview(self._next(pieces))
                part = bytes(piece[:left_bytes])
                self._partial.write(offset, part)
                digest.update(part)
                piece, offset, left_bytes = piece[len(part) :], offset + len(part), left_bytes - len(part)
            yield number, digest.hexdigest() == chunk.sha256

    def _next(self, pieces: Iterator[bytes]) -> bytes:
        self._pace.wait(self._depot.is_remote)
        try:
            piece = next(pieces, b"")
        except OSError as error:
            raise _Broken(str(error)) from error
        if not piece:
            raise _Broken("it ends too early")
        self._pace.spend(len(piece), self._depot.is_remote)
        return piece
