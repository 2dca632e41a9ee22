"""The example with speech: the state is fed back step by step, and decisions stay those of the original."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.converter.examples.modules import EXAMPLES, example_module
from tests.converter.kept_environments import KEPT, kept_environments

from autoglm_edge_converter.tensors import Array
from autoglm_edge_protocol.bundle import read_manifest

EXAMPLE = EXAMPLES / "speech_stateful"
decisions, following, stream = (example_module("speech_stateful", name) for name in ("decisions", "follow", "stream"))
__all__ = ["kept_environments"]
CONVERT = [sys.executable, "-c", "from autoglm_edge.app import main; main()", "convert"]


def test_windows_overlap_by_their_context() -> None:
    sound = np.arange(3 * stream.WINDOW + 7, dtype=np.float32)
    found = list(stream.windows(sound))
    assert [window.shape for window in found] == [(1, stream.CONTEXT + stream.WINDOW)] * 3
    assert np.array_equal(found[1][0, : stream.CONTEXT], found[0][0, -stream.CONTEXT :])
    assert not found[0][0, : stream.CONTEXT].any()


def test_the_state_that_comes_out_goes_in_again() -> None:
    def count(feed: dict[str, Array]) -> list[Array]:
        return [feed["state"].reshape(-1)[:1], feed["state"] + 1]

    found = list(stream.feeds(count, np.zeros(4 * stream.WINDOW, np.float32)))
    assert [speech for _, speech in found] == [0, 1, 2, 3]
    assert [float(feed["state"].max()) for feed, _ in found] == [0, 1, 2, 3]


def test_noise_is_as_loud_as_it_was_asked_for() -> None:
    sound = np.sin(np.arange(16000) / 20).astype(np.float32) * 0.2
    noise = stream.with_noise(sound, 20, np.random.default_rng(0)) - sound
    level = 10 * np.log10((sound**2).mean() / (noise**2).mean())
    assert level == pytest.approx(20, abs=0.1)  # but for what is rounded to float32


@pytest.mark.parametrize(("speech", "state", "alike"), [(0.6, 1.0, 1), (0.4, 1.0, 0), (0.6, 1.2, 0)])
def test_a_decision_counts_with_a_state_that_is_close(speech: float, state: float, alike: float) -> None:
    def answer(probability: float, level: float) -> dict[str, Array]:
        return {"output": np.full((1, 1), probability), "stateN": np.full(stream.STATE_SHAPE, level)}

    assert decisions.decided_alike([answer(0.9, 1.0)], [answer(speech, state)], None) == alike


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_errors_do_not_grow_when_the_state_is_fed_back(tmp_path: Path) -> None:
    folder = KEPT / "examples" / "speech"
    subprocess.run([sys.executable, str(EXAMPLE / "prepare.py"), str(folder)], check=True)
    judged = [
        "--metric",
        f"{EXAMPLE / 'decisions.py'}:decided_alike",
        "--budget-s",
        "60",
        "--no-cache",
        "--tables-only",
    ]
    given = [str(folder / "silero_vad_openvino_16k.onnx"), "--calibration", str(folder / "samples.npz")]
    formats = ["--format", "onnx", "--format", "tflite", "--name", "silero-vad", "--output", str(tmp_path)]
    formats += ["--no-cache", "--tables-only"]
    done = subprocess.run([*CONVERT, *given, *judged, *formats], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr  # 3: on 8 bits it is no faster, which the command says
    variants = read_manifest(tmp_path / "silero-vad-1.0.0").variants
    assert {(state.input.name, state.output) for each in variants for state in each.states} == {("state", "stateN")}
    assert {(len(each.inputs), len(each.outputs), len(each.states)) for each in variants} == {(1, 1, 1)}
    found = {entry.variant: entry for entry in following.follow(folder, tmp_path / "silero-vad-1.0.0")}
    assert {"fp32", "tflite-fp32"} <= set(found)
    for entry in found.values():
        assert 0.3 < entry.speech < 0.9
        # The budget is one decision in a hundred from the same state; fed back, no more than that may come of it.
        assert entry.agreement >= 0.99, entry
        # Errors that added up would be larger at the end than at the beginning by far; the scenes differ somewhat.
        assert entry.late <= 2 * entry.early + 0.01, entry
    assert found["fp32"].agreement == found["tflite-fp32"].agreement == 1.0
