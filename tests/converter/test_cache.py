"""The cache: what was put comes back; what is damaged, or was used longest ago, is gone."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_edge_converter.cache import FolderCache, user_cache_folder
from autoglm_edge_converter.quality import TOP1, OutputScore, Score
from autoglm_edge_converter.recipes import Candidate, Recipe, Tuned
from autoglm_edge_converter.records import from_json, to_json
from autoglm_edge_converter.search import Trial


def test_what_was_put_comes_back_and_other_keys_are_absent(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path / "deep" / "folder")
    assert cache.get("a") is None
    cache.put("a", b"score")
    assert cache.get("a") == b"score"
    assert cache.get("b") is None


@pytest.mark.parametrize("damage", [b"", b"short", b"0" * 64 + b"score"])
def test_a_damaged_entry_counts_as_absent_and_is_removed(tmp_path: Path, damage: bytes) -> None:
    cache = FolderCache(tmp_path)
    cache.put("a", b"score")
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(damage)
    assert cache.get("a") is None
    assert not entry.exists()
    cache.put("a", b"again")
    assert cache.get("a") == b"again"


def test_the_entries_used_longest_ago_go_first(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, most_bytes=250)
    for number, key in enumerate("abc"):
        cache.put(key, b"x" * 36)  # a hundred bytes each with the digest
        for path in tmp_path.iterdir():
            if path.stat().st_mtime > 1e9:
                os.utime(path, (number, number))
    assert cache.get("a") is not None  # used now
    cache.trim()
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]


def test_a_folder_that_cannot_be_written_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    cache = FolderCache(file)
    cache.put("a", b"score")
    assert cache.get("a") is None
    cache.trim()


def test_the_users_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folder() == tmp_path / "autoglm-edge"


@given(
    st.floats(allow_nan=False),
    st.none() | st.floats(allow_nan=False),
    st.integers(0, 10**9),
    st.lists(st.text(max_size=5), max_size=3),
)
def test_a_trial_survives_being_written(value: float, noise: float | None, size: int, floats: list[str]) -> None:
    candidate = Candidate(Recipe("entropy", equalise=True), tuple(floats), (Tuned("t", 0.5, 1.0),), "pruned")
    score = Score((OutputScore("y", TOP1, value, noise, finite=True),), 7)
    assert from_json(Trial, to_json(Trial(candidate, score, size))) == Trial(candidate, score, size)
    assert from_json(Trial, to_json(Trial(candidate, None, problem="no"))) == Trial(candidate, None, problem="no")


@given(st.binary(max_size=60) | st.sampled_from([b"{}", b"[]", b"null", b'{"candidate": 1}', b'{"recipe": {}}']))
def test_anything_else_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(Trial, data)
    assert math.isinf(from_json(Tuned, b'{"tensor": "t", "low": Infinity, "high": 1}').low)
