"""The command `bench` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.converter.graphs import DIGITS

COMMAND = [sys.executable, "-c", "from autoglm_edge.app import main; main()", "bench"]


def bench(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, check=False)


def test_json_is_all_that_is_printed() -> None:
    done = bench(DIGITS / "mbn.onnx", "--runs", 5, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["inputs"] == "random numbers"
    assert [lap["provider"] for lap in found["laps"]] == ["CPUExecutionProvider"]
    assert {"median_us", "p90_us", "cpu_us", "load_us", "peak_rss_bytes", "threads"} < set(found["laps"][0])
    assert all(entry["problem"] for entry in found["problems"])


def test_the_table_says_what_does_not_work() -> None:
    done = bench(DIGITS / "mbn.onnx", "--runs", 5)
    assert done.returncode == 0, done.stderr
    assert "median" in done.stdout
    assert "not here: Azure: " in done.stdout


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("no model " * 20)
    for words, code, says in (
        ((tmp_path / "m.onnx",), 1, "not an ONNX model"),
        ((tmp_path / "none.bundle",), 1, "does not exist"),
        ((DIGITS / "mbn.onnx", "--threads", "one"), 2, "list of numbers"),
    ):
        done = bench(*words)
        assert done.returncode == code
        assert says in done.stderr
        assert "Traceback" not in done.stderr
