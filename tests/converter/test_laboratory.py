"""A candidate that fails, or takes its process with it, is a finding; the laboratory goes on."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import linear

from autoglm_edge_converter.cache import FolderCache
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.laboratory import Laboratory
from autoglm_edge_converter.worker import CLEAR, are_clear, median_error

FEEDS = [{"x": np.full((1, 8), number, np.float32)} for number in range(4)]


def test_a_model_answers_in_the_order_asked(tmp_path: Path) -> None:
    model = linear(tmp_path / "m.onnx")
    with Laboratory(FEEDS, tmp_path) as laboratory:
        three, one = laboratory.run(model, [3, 1])
        assert three[0].shape == (1, 4)
        bias = np.arange(4, dtype=np.float32) / 10
        # The model is linear but for its bias; single precision leaves 1e-6 on numbers near 1.
        np.testing.assert_allclose(three[0] - bias, 3 * (one[0] - bias), rtol=1e-4, atol=1e-5)


def test_times_and_memory_are_measured(tmp_path: Path) -> None:
    model = linear(tmp_path / "m.onnx")
    with Laboratory(FEEDS, tmp_path) as laboratory:
        first, second = laboratory.time([model, model], [0, 1])
        assert min(first.wall_us, second.wall_us, first.cpu_us, second.cpu_us) > 0
        assert 20e6 < laboratory.peak_memory_bytes(model, [0]) < 400e6


def test_a_file_that_is_refused_is_a_finding_and_the_next_one_runs(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    model = linear(tmp_path / "m.onnx")
    with Laboratory(FEEDS, tmp_path) as laboratory:
        with pytest.raises(CandidateFailed) as caught:
            laboratory.run(broken, [0])
        assert "\n" not in str(caught.value)
        assert len(laboratory.run(model, [0])) == 1


def test_a_process_that_dies_is_a_finding_and_is_started_again(tmp_path: Path) -> None:
    model = linear(tmp_path / "m.onnx")
    with Laboratory(FEEDS, tmp_path) as laboratory:
        laboratory.run(model, [0])
        process = laboratory.workers[0].process
        assert process is not None
        killer = threading.Timer(0.05, os.kill, (process.pid, signal.SIGSEGV))
        killer.start()
        with pytest.raises(CandidateFailed, match="signal 11"):
            laboratory.time([model] * 20, [0])
        killer.join()
        assert len(laboratory.run(model, [0])) == 1


def test_times_tell_their_own_noise_and_more_patience_takes_more_runs(tmp_path: Path) -> None:
    assert median_error([10.0] * 9) == 0.0
    assert 0.0 < median_error([9.0, 10.0, 11.0] * 12) < median_error([9.0, 10.0, 11.0] * 3)
    assert median_error([10.0, 10.1, 9.9] * 3 + [1000.0]) < 0.01, "one outlier counts for nothing"
    quiet, busy = [100.0, 100.1, 99.9] * 6, [90.0, 100.0, 110.0] * 6
    assert median_error(quiet) < CLEAR < median_error(busy)
    assert are_clear([quiet, quiet])
    assert not are_clear([quiet, busy]), "one that is not is enough to go on"
    assert not are_clear([quiet[:6], quiet[:6]])
    model = linear(tmp_path / "m.onnx")
    with Laboratory(FEEDS, tmp_path) as laboratory:
        (timing,) = laboratory.time([model], [0], patience=0.1)
        assert 0.0 <= timing.noise < 1.0


def test_what_was_measured_on_this_machine_is_not_measured_again(tmp_path: Path) -> None:
    model = linear(tmp_path / "m.onnx")
    found = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Laboratory(FEEDS, folder, memory=FolderCache(tmp_path / "cache")) as laboratory:
            found.append((laboratory.time([model, model], [0]), laboratory.peak_memory_bytes(model, [0])))
            assert (laboratory.workers[0].process is None) == bool(number), "the second asks no process"
    assert found[0] == found[1]
    other = linear(tmp_path / "other.onnx", weights=0.2)
    with Laboratory(FEEDS, tmp_path, memory=FolderCache(tmp_path / "cache")) as laboratory:
        assert laboratory.time([other], [0]) != found[0][0][:1]
