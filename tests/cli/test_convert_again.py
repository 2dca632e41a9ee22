"""Conversions that are interrupted or made again: what was found out is not found out twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.converter.graphs import DIGITS, write_digits

COMMAND = [sys.executable, "-c", "from autoglm_edge.app import main; main()"]
ENOUGH = 3
"""Scores in the cache when the interruption comes: the search has begun and is not done."""


def words(folder: Path, output: str, cache: str, *more: str) -> list[str]:
    where = ["--calibration", folder / "s.npz", "--output", folder / output, "--cache", folder / cache]
    return [*COMMAND, "convert", *map(str, (DIGITS / "mbn.onnx", *where)), "--max-drop", "0.2", "--json", *more]


def convert(folder: Path, output: str, cache: str, *more: str) -> dict[str, Any]:
    done = subprocess.run(words(folder, output, cache, *more), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def entries(cache: Path) -> dict[str, int]:
    """Return the scores by key, with the file that holds each: one that is written again is another file.

    What was timed is kept there too, by the files that were timed together; which these are depends on the clock.
    """
    return {path.name: path.stat().st_ino for path in cache.glob("*.entry") if b'"candidate"' in path.read_bytes()}


def interrupt_in_the_search(folder: Path, cache: str) -> tuple[int, str]:
    process = subprocess.Popen(
        words(folder, "interrupted", cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(entries(folder / cache)) < ENOUGH and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    # The whole group, as a terminal does on Ctrl-C.
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.slow
def test_what_was_scored_before_ctrl_c_is_used_by_the_next_run(tmp_path: Path) -> None:
    write_digits(tmp_path / "s.npz", 60)
    code, said = interrupt_in_the_search(tmp_path, "cache")
    assert code == 130, said
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("autoglm-edge: ")] == [
        "autoglm-edge: interrupted; nothing was written, what was scored is kept for the next run"
    ]
    assert not list((tmp_path / "interrupted").glob("*"))
    before = entries(tmp_path / "cache")
    again = convert(tmp_path, "interrupted", "cache")
    after = entries(tmp_path / "cache")
    assert len(before) >= ENOUGH
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)
    # Which of two equally fast ones is shipped may depend on the clock; what was found out about each may not.
    fresh = convert(tmp_path, "fresh", "another")
    assert again["tried"] == fresh["tried"]
    assert entries(tmp_path / "another").keys() == after.keys()
    one, other = ({v["id"]: v for v in found["variants"]} for found in (again, fresh))
    for name in one.keys() & other.keys():
        if one[name]["notes"] == other[name]["notes"]:
            paths = [tmp_path / output / "mbn-1.0.0" / one[name]["model"] for output in ("interrupted", "fresh")]
            assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.slow
def test_one_more_option_costs_only_its_own_work(tmp_path: Path) -> None:
    write_digits(tmp_path / "s.npz", 60)
    first = convert(tmp_path, "one", "cache")
    before = entries(tmp_path / "cache")
    convert(tmp_path, "two", "cache", "--max-size", "2MB")
    assert entries(tmp_path / "cache") == before
    pruned = convert(tmp_path, "three", "cache", "--prune", "0.2")
    after = entries(tmp_path / "cache")
    assert {name: after[name] for name in before} == before
    new = [trial for trial in pruned["tried"] if trial not in first["tried"]]
    assert 0 < len(after) - len(before) <= 2 * len(new)
