"""How long the fleet may be silent, where the owner's cap lets a device ask for a block only now and then."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from autoglm_edge_agent.errors import Hindrance
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates import receiving
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.updates.policy import TransferPolicy
from autoglm_edge_agent.updates.receiving import Block
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.transfer import FetchRequest, StreamCredit

BLOCK_BYTES = 512
DATA = bytes(range(256)) * 4
FILE = ChunkedFile.whole(sha256_of(DATA), len(DATA))
PATIENCE_S = 0.2
CAP = int(BLOCK_BYTES / (2 * PATIENCE_S))
"""A block takes twice as long as the fleet may be silent."""


class Fleet:
    """Answers each request at once, or none."""

    connected = True

    def __init__(self, *, is_silent: bool) -> None:
        self._is_silent = is_silent
        self.fetcher: Fetcher | None = None

    def request(self, request: FetchRequest) -> bool:
        assert self.fetcher is not None
        for block in [] if self._is_silent else request.blocks():
            start = block * BLOCK_BYTES
            self.fetcher.deliver(Block(request.sha256, start, DATA[start : start + BLOCK_BYTES]))
        return True

    def follow(self, sha256: str) -> None:
        raise AssertionError(f"a device with a cap follows nothing, but {sha256} was followed")

    def unfollow(self, sha256: str) -> None:
        self.follow(sha256)

    def credit(self, credit: StreamCredit) -> bool:
        raise AssertionError(f"nothing is streamed here, but {credit} came")

    async def acknowledged_credit(self, credit: StreamCredit) -> None:
        self.credit(credit)


async def fetch(store: Store, fleet: Fleet) -> None:
    policy = TransferPolicy(BLOCK_BYTES, max_bytes_per_s=CAP)
    fleet.fetcher = Fetcher(store, fleet, lambda _sha256, _bytes: None, policy)
    await fleet.fetcher.fetch(FILE)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(receiving, "PATIENCE_S", PATIENCE_S)
    return Store(tmp_path, Disk())


async def test_who_was_not_asked_is_not_silent(store: Store) -> None:
    begun = time.monotonic()
    await fetch(store, Fleet(is_silent=False))
    assert store.has(FILE.sha256)
    assert time.monotonic() - begun >= len(DATA) / CAP - 0.1


async def test_who_was_asked_is(store: Store) -> None:
    with pytest.raises(Hindrance) as met:
        await fetch(store, Fleet(is_silent=True))
    assert met.value.reason.code == "fleet-silent"
