"""One file from several sources: real folders, a real web server over TLS, and a fleet that answers at once."""

from __future__ import annotations

import asyncio
import datetime
import errno
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.fakes.sticks import Faults, HttpsServer

from autoglm_edge_agent.errors import Hindrance
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.trust.depots import FolderDepot, HttpsDepot, object_name
from autoglm_edge_agent.trust.https import HttpsRepository, answers
from autoglm_edge_agent.updates.allowance import QuietHours
from autoglm_edge_agent.updates.beside import Beside, Depot
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.updates.policy import TransferPolicy
from autoglm_edge_agent.updates.progress import Progress
from autoglm_edge_agent.updates.receiving import Block
from autoglm_edge_protocol.chunks import Chunk, ChunkedFile
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.transfer import FetchRequest, StreamCredit

DATA = np.random.default_rng(7).bytes(2_000_000)
BLOCK = LIMITS.block_bytes


def _cut(data: bytes) -> ChunkedFile:
    pieces = [data[start : start + 65_536] for start in range(0, len(data), 65_536)]
    chunks = tuple(Chunk(size_bytes=len(piece), sha256=sha256_of(piece)) for piece in pieces)
    return ChunkedFile(sha256=sha256_of(data), size_bytes=len(data), chunks=chunks)


class Fleet:
    """Answers each request at once, and counts what it sends."""

    connected = True

    def __init__(self) -> None:
        self.fetcher: Fetcher | None = None
        self.sent_bytes = 0

    def request(self, request: FetchRequest) -> bool:
        assert self.fetcher is not None
        for block in request.blocks():
            start = block * request.block_bytes
            piece = DATA[start : start + request.block_bytes]
            self.sent_bytes += len(piece)
            self.fetcher.deliver(Block(request.sha256, start, piece))
        return True

    def credit(self, credit: StreamCredit) -> bool:
        raise AssertionError(f"nothing is streamed here, but {credit} came")

    async def acknowledged_credit(self, credit: StreamCredit) -> None:
        self.credit(credit)

    def follow(self, sha256: str) -> None:
        """Nobody else is there."""

    def unfollow(self, sha256: str) -> None:
        """Nothing was followed."""


class WornStick(FolderDepot):
    """A stick on which some places cannot be read any more."""

    def __init__(self, folder: Path, worn: list[int]) -> None:
        super().__init__(folder)
        self._worn = worn

    def read(self, sha256: str, offset: int, size_bytes: int) -> Generator[bytes, None, None]:
        for piece in super().read(sha256, offset, size_bytes):
            if any(offset <= place < offset + len(piece) for place in self._worn):
                raise OSError(errno.EIO, "the medium has an error")
            offset += len(piece)
            yield piece


class Download:
    """A device's store, a fetcher and its sources. Each fetcher of `restart` counts its progress anew."""

    def __init__(self, directory: Path, server: HttpsServer) -> None:
        (directory / "whole").write_bytes(DATA)
        self.file: ChunkedFile = _cut(DATA)
        self.store = Store(directory / "state", Disk())
        self.server = server
        self.web, self.stick = directory / "web", directory / "stick"
        for folder in (self.web, self.stick):
            (folder / object_name(self.file.sha256)).parent.mkdir(parents=True, exist_ok=True)
        self.worn: list[int] = []
        self.fleet = Fleet()
        self.progress = Progress()

    def on_stick(self, data: bytes) -> None:
        (self.stick / object_name(self.file.sha256)).write_bytes(data)

    def on_web(self, data: bytes) -> None:
        (self.web / object_name(self.file.sha256)).write_bytes(data)

    def restart(self, policy: TransferPolicy | None = None) -> Fetcher:
        policy, self.progress = policy or TransferPolicy(), Progress()
        depots: list[Depot] = [HttpsDepot(HttpsRepository(self.server.url, self.server.ca_file))]
        depots.append(WornStick(self.stick, self.worn))
        beside = Beside(lambda: depots, policy, self.progress.reached, self.progress.found)
        fetcher = Fetcher(self.store, self.fleet, self.progress.reached, policy, beside)
        self.fleet.fetcher = fetcher
        return fetcher

    async def run(self, policy: TransferPolicy | None = None) -> None:
        """Fetch the file, and see that it is right and that the sums are."""
        await self.restart(policy).fetch(self.file)
        assert self.store.object_path(self.file.sha256).read_bytes() == DATA
        assert self.progress.present_bytes + self.progress.fetched_bytes == len(DATA)

    def of_fleet(self, missing_bytes: int, runs: int) -> bool:
        """Whether the fleet has sent what was missing in so many runs, and no more than two blocks for the ends."""
        return missing_bytes <= self.fleet.sent_bytes <= missing_bytes + 2 * BLOCK * runs


@pytest.fixture
def download(tmp_path: Path) -> Iterator[Download]:
    with HttpsServer(tmp_path / "web", tmp_path / "certificates") as server:
        yield Download(tmp_path, server)


def _spoilt(data: bytes, *offsets: int) -> bytes:
    changed = bytearray(data)
    for offset in offsets:
        changed[offset] ^= 1
    return bytes(changed)


def _chunks_at(file: ChunkedFile, offsets: list[int], size_bytes: int) -> int:
    """Return how many bytes the chunks have that hold these offsets or reach beyond `size_bytes`."""
    found, start = 0, 0
    for chunk in file.chunks:
        end = start + chunk.size_bytes
        if end > size_bytes or any(start <= offset < end for offset in offsets):
            found += chunk.size_bytes
        start = end
    return found


async def test_a_stick_that_ends_early_and_is_damaged_gives_what_is_right(download: Download) -> None:
    offsets = [5, 400_000]
    download.on_stick(_spoilt(DATA, *offsets)[:1_000_001])
    await download.run()
    missing = _chunks_at(download.file, offsets, 1_000_001)
    assert download.progress.fetched_bytes == missing > 1_000_000
    assert download.of_fleet(missing, 3)


async def test_what_a_stick_cannot_read_is_passed_over_but_not_for_ever(download: Download) -> None:
    download.on_stick(DATA)
    download.worn = [300_000, 900_000]
    await download.run()
    missing = _chunks_at(download.file, download.worn, len(DATA))
    assert download.progress.fetched_bytes == missing and download.of_fleet(missing, 2)
    download.store.object_path(download.file.sha256).unlink()
    download.worn = list(range(0, len(DATA), 1000))
    await download.run()
    assert download.progress.fetched_bytes == len(DATA)


async def test_the_server_gives_what_the_stick_lacks_and_the_fleet_the_rest(download: Download) -> None:
    download.on_stick(DATA[:700_000])
    download.on_web(_spoilt(DATA, 1_500_000))
    await download.run()
    lacked, wrong = _chunks_at(download.file, [], 700_000), _chunks_at(download.file, [1_500_000], len(DATA))
    assert download.progress.fetched_bytes == lacked
    assert download.server.served == [(download.file.sha256, len(DATA) - lacked, lacked)], "nothing twice"
    assert download.of_fleet(wrong, 1)


async def test_a_server_is_asked_before_the_stick_where_the_owner_says_so(download: Download) -> None:
    download.on_stick(DATA)
    download.on_web(_spoilt(DATA, 1_500_000))
    await download.run(TransferPolicy(sources=("https", "folder")))
    wrong = _chunks_at(download.file, [1_500_000], len(DATA))
    assert (download.progress.present_bytes, download.fleet.sent_bytes) == (wrong, 0)


async def test_a_server_that_breaks_off_is_left_and_what_it_gave_stays(download: Download) -> None:
    download.on_web(DATA)
    download.server.faults = Faults(breaks_after=900_000)
    download.server.faults.goes_on.set()
    await download.run()
    assert download.progress.fetched_bytes == len(DATA)
    assert download.of_fleet(_chunks_at(download.file, [], 900_000), 1)
    assert len(download.server.served) == 1


async def test_a_server_that_ignores_ranges_is_read_from_the_beginning_only(download: Download) -> None:
    download.on_web(DATA)
    download.server.faults = Faults(ignores_ranges=True)
    await download.run()
    assert download.fleet.sent_bytes == 0
    download.store.object_path(download.file.sha256).unlink()
    download.on_stick(DATA[:700_000])
    await download.run()
    assert download.of_fleet(_chunks_at(download.file, [], 700_000), 1)


async def test_a_server_that_sends_only_wrong_bytes_is_soon_left(download: Download) -> None:
    download.on_web(bytes(len(DATA)))
    await download.run()
    assert download.of_fleet(len(DATA), 1)


async def test_a_server_that_sends_less_or_more_than_the_range_does_no_harm(download: Download) -> None:
    download.on_stick(DATA[:700_000])
    download.on_web(DATA + b"more")
    download.server.faults = Faults(spoil=lambda _offset, data: data + b"beyond")
    await download.run()
    assert download.fleet.sent_bytes == 0
    download.store.object_path(download.file.sha256).unlink()
    download.on_web(DATA[:1_000_000])
    download.server.faults = Faults()
    await download.run()
    assert download.of_fleet(_chunks_at(download.file, [], 1_000_000), 1)


async def test_a_cancelled_download_ends_its_thread_and_goes_on_where_it_was(download: Download) -> None:
    download.on_web(DATA)
    download.server.faults = Faults(breaks_after=900_000)
    task = asyncio.create_task(download.restart().fetch(download.file))
    got = len(DATA) - _chunks_at(download.file, [], 900_000)
    while download.progress.fetched_bytes < got:
        await asyncio.sleep(0.01)
    task.cancel()
    download.server.faults.goes_on.set()  # the thread waits for bytes, and is not left behind
    with pytest.raises(asyncio.CancelledError):
        await task
    download.server.faults = Faults()
    await download.run()
    assert (download.progress.present_bytes, download.fleet.sent_bytes) == (got, 0)
    assert download.server.served[1:] == [(download.file.sha256, got, len(DATA) - got)]


async def test_what_nobody_has_is_a_hindrance_where_the_fleet_is_not_asked(download: Download) -> None:
    download.on_stick(DATA[:700_000])
    policy = TransferPolicy(sources=("folder", "https"))
    with pytest.raises(Hindrance) as caught:
        await download.restart(policy).fetch(download.file)
    assert caught.value.reason.code == "no-source" and download.fleet.sent_bytes == 0
    download.on_web(DATA)
    await download.run(policy)
    assert download.server.served[0][1:] == (
        len(DATA) - _chunks_at(download.file, [], 700_000),
        download.server.served[0][2],
    )


async def test_quiet_hours_hold_for_the_server_and_not_for_the_stick(download: Download) -> None:
    now = datetime.datetime.now()
    begin, end = (now + datetime.timedelta(hours=hours) for hours in (-2, 2))
    quiet = QuietHours.parse(f"{begin:%H:%M}-{end:%H:%M}")
    download.on_web(DATA)
    for sources in (("folder", "https"), ("folder", "https", "fleet")):
        with pytest.raises(Hindrance) as caught:
            await download.restart(TransferPolicy(quiet_hours=quiet, sources=sources)).fetch(download.file)
        assert caught.value.reason.code == "quiet-hours"
    assert download.server.paths == [] and download.fleet.sent_bytes == 0
    download.on_stick(DATA)
    await download.run(TransferPolicy(quiet_hours=quiet))
    assert download.progress.present_bytes == len(DATA)


async def test_the_cap_holds_for_the_server_and_not_for_the_stick(download: Download) -> None:
    download.on_stick(DATA[:1_000_000])
    download.on_web(DATA)
    cap = 500_000
    began = time.monotonic()
    await download.run(TransferPolicy(max_bytes_per_s=cap))
    elapsed_s = time.monotonic() - began
    fetched = download.progress.fetched_bytes
    assert download.fleet.sent_bytes == 0
    # A token bucket of a second may be full when it begins.
    assert elapsed_s >= (fetched - cap - BLOCK) / cap > 0.5


@pytest.mark.parametrize(
    ("status", "content_range", "span", "expected"),
    [
        (200, None, None, True),
        (206, "bytes 0-9/10", None, False),
        (200, None, (0, 10), True),
        (200, None, (1, 10), False),
        (206, "bytes 5-14/100", (5, 10), True),
        (206, "bytes 5-14/*", (5, 10), True),
        (206, "bytes 5-9/10", (5, 10), True),
        (206, "bytes 5-15/100", (5, 10), False),
        (206, "bytes 4-13/100", (5, 10), False),
        (206, "bytes 5-4/100", (5, 10), False),
        (206, "bytes */100", (5, 10), False),
        (206, None, (5, 10), False),
        (416, "bytes */3", (5, 10), False),
        (404, None, (0, 10), False),
    ],
)
def test_what_answers_a_range(
    status: int, content_range: str | None, span: tuple[int, int] | None, expected: bool
) -> None:
    assert answers(status, content_range, span) is expected
