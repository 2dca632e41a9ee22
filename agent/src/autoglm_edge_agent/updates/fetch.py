"""Fetching files from the fleet into partial files, and from there into the store.

A partial file needs no index of its own: on a restart its chunks are hashed, and those that are right are kept.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable

from autoglm_edge_agent.cancellation import in_thread
from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates.allowance import Allowance
from autoglm_edge_agent.updates.beside import Beside
from autoglm_edge_agent.updates.blocks import BlockTransfer, CorruptChunk
from autoglm_edge_agent.updates.partial import PartialFile
from autoglm_edge_agent.updates.policy import TransferPolicy
from autoglm_edge_agent.updates.receiving import Block, BlockTooLarge, Receiving
from autoglm_edge_agent.updates.requests import Requests
from autoglm_edge_agent.updates.seeding import plant
from autoglm_edge_agent.updates.seeds import NOWHERE, Places
from autoglm_edge_agent.updates.settling import Settling
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.errors import DigestMismatch
from autoglm_edge_protocol.transfer import FetchRefusal

_ASSEMBLY_ATTEMPTS = 2


Progress = Callable[[str, int], None]
"""Told how many bytes of a file (SHA-256, bytes) are in place and verified: first what was there already."""


class Fetcher:
    """Fetches one file at a time.

    Args:
        store: where partial files lie and whole ones go.
        requests: the way to the fleet.
        on_progress: told when a file is begun and with every block.
        policy: when, how fast and in what blocks.
        beside: asked for what is missing before the fleet is.
    """

    def __init__(
        self,
        store: Store,
        requests: Requests,
        on_progress: Progress,
        policy: TransferPolicy | None = None,
        beside: Beside | None = None,
    ) -> None:
        self._store = store
        self._requests = requests
        self._on_progress = on_progress
        self._policy = policy or TransferPolicy()
        self._beside = beside
        self._block_bytes = self._policy.block_bytes
        self._allowance = Allowance(self._policy.max_bytes_per_s, time.monotonic())
        self._receiving: Receiving | None = None
        self._next_request_id = random.randrange(1 << 31)  # noqa: S311 - tells requests apart, hides nothing

    @property
    def wanted(self) -> str | None:
        """The digest of the file that is being received."""
        return self._receiving.sha256 if self._receiving else None

    def deliver(self, item: Block | FetchRefusal) -> None:
        """Take what arrived for the file that is being received; anything else is dropped."""
        if self._receiving:
            self._receiving.deliver(item)

    async def fetch(self, file: ChunkedFile, places: Places = NOWHERE) -> None:
        """Bring a file into the store; returns when it is there, whole and verified.

        Args:
            file: what to fetch.
            places: where chunks of it lie on this disk; they are copied, and the others asked for.

        Raises:
            Refusal: the fleet does not have it (`not-found`), or its bytes are wrong each time (`corrupt-data`).
            Hindrance: the fleet is silent (`fleet-silent`), these are quiet hours (`quiet-hours`), or no source has it
                and the fleet is not to be asked (`no-source`).
            OSError: from the disk.
        """
        for _ in range(_ASSEMBLY_ATTEMPTS):
            if self._store.has(file.sha256):
                return
            found_sha256 = await self._assemble(file, places)
            with contextlib.suppress(DigestMismatch):
                await in_thread(self._store.admit, file.sha256, found_sha256)
        if not self._store.has(file.sha256):
            raise Refusal("corrupt-data", f"the chunks of {file.sha256[:12]} are right, but the whole file is not")

    async def _assemble(self, file: ChunkedFile, places: Places) -> str:
        """Bring all chunks of a file into its partial file, synced; returns the digest of the whole."""
        disk, path = self._store.disk, self._store.partial_path(file.sha256)
        with disk.open_write(path) as opened:
            partial = PartialFile(disk, opened, file)
            # Not in the event loop: flushing a model to a slow card takes seconds, and workers are being listened to.
            settling = Settling(partial, path)
            try:
                while not await self._attempt(partial, places, settling):
                    pass
                return await settling.finish()
            finally:
                await settling.stop()

    async def _attempt(self, partial: PartialFile, places: Places, settling: Settling) -> bool:
        """Copy and receive what is missing; False when the blocks must be smaller, and it is to be tried again."""
        file = partial.file
        verified = await plant(self._store, partial, await in_thread(partial.verified), places)
        if self._beside is not None:
            verified = await self._beside.take(partial, verified, self._allowance)
        transfer = BlockTransfer(file, self._block_bytes, verified, time.monotonic(), _jitter)

        def progressed() -> None:
            self._on_progress(file.sha256, transfer.verified_bytes)
            settling.reached(transfer.verified_from_start_bytes)

        progressed()
        self._receiving = receiving = Receiving(
            self._requests,
            self._policy,
            self._allowance,
            partial,
            transfer,
            self._next_request_id,
            progressed,
        )
        try:
            await receiving.run()
        except BlockTooLarge as error:
            self._block_bytes = error.block_bytes
            return False
        except CorruptChunk as error:
            raise Refusal("corrupt-data", f"{file.sha256[:12]}: {error}") from None
        finally:
            self._next_request_id = receiving.next_request_id
            self._receiving = None
        return True


def _jitter() -> float:
    return random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing
