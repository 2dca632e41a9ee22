"""Regions that a client registered, and what it may do to its object meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.descriptors import open_files

from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.shared_memory import MOST_REGIONS, SharedRegions
from autoglm_edge_protocol.limits import LIMITS

ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.none()))


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[SharedRegions]:
    (tmp_path / "object").write_bytes(bytes(range(100)))
    regions = SharedRegions(tmp_path)
    yield regions
    regions.close()


def test_what_is_written_is_where_it_belongs(regions: SharedRegions, tmp_path: Path) -> None:
    regions.register("r", {"key": "/object", "offset": 10, "byte_size": 50})
    assert regions.read("r", 5, 3) == bytes([15, 16, 17])
    regions.write("r", 40, 10, b"0123456789")
    assert (tmp_path / "object").read_bytes() == bytes(range(50)) + b"0123456789" + bytes(range(60, 100))


def test_an_object_that_shrinks_is_an_error(regions: SharedRegions, tmp_path: Path) -> None:
    regions.register("r", {"key": "object", "byte_size": 100})
    os.truncate(tmp_path / "object", 50)
    assert regions.read("r", 0, 50) == bytes(range(50))
    with pytest.raises(RequestError, match="become smaller"):
        regions.read("r", 40, 20)
    with pytest.raises(RequestError, match="become smaller"):
        regions.write("r", 40, 20, b"x" * 20)
    assert (tmp_path / "object").stat().st_size == 50


def test_an_object_without_contents_does_not_fill_the_memory(regions: SharedRegions, tmp_path: Path) -> None:
    os.truncate(tmp_path / "object", 2**40)
    regions.register("r", {"key": "object", "byte_size": 2**40})
    assert regions.read("r", 2**40 - 4, 4) == bytes(4)
    with pytest.raises(RequestError) as caught:
        regions.read("r", 0, LIMITS.request_body_bytes + 1)
    assert caught.value.status == 413


def test_only_plain_files_of_the_folder_are_opened(regions: SharedRegions, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "object")
    (tmp_path / "folder").mkdir()
    for key in ("fifo", "link", "folder", "folder/../object", "\ud800", "..", "/", "", "a" * 251):
        with pytest.raises(RequestError):
            regions.register("r", {"key": key, "byte_size": 1})
    assert regions.status(None) == []


def test_the_number_of_regions_is_bounded(regions: SharedRegions) -> None:
    before = open_files()
    for number in range(MOST_REGIONS):
        regions.register(str(number), {"key": "object", "byte_size": 1})
    with pytest.raises(RequestError, match="registered already"):
        regions.register("more", {"key": "object", "byte_size": 1})
    assert (open_files() - before).total() == MOST_REGIONS
    regions.unregister(None)
    assert not open_files() - before


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.one_of(st.just("object"), ANYTHING),
    offset=st.one_of(st.integers(-5, 105), ANYTHING),
    size=st.one_of(st.integers(-5, 105), ANYTHING),
    at=st.integers(-5, 2**70),
    count=st.integers(-5, 2**70),
)
def test_whatever_is_asked_is_done_inside_or_refused(
    regions: SharedRegions, key: object, offset: object, size: object, at: int, count: int
) -> None:
    try:
        regions.register("r", {"key": key, "offset": offset, "byte_size": size})
        assert isinstance(offset, int) and isinstance(size, int)
        inside = bytes(range(100))[offset : offset + size]
        assert len(inside) == size
        assert bytes(regions.read("r", at, count)) == inside[at : at + count]
    except RequestError as error:
        assert error.status in (400, 413) and "\n" not in str(error)
    finally:
        regions.unregister("r")
