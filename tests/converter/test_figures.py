"""Figures of the digits networks that no clock decides: what default options reach, whatever the processor."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import DIGITS, INT8

from autoglm_edge_converter import convert
from autoglm_edge_converter.runners.onnx import open_session

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "conversion"))

from figures import verdicts  # type: ignore[import-not-found]  # a script beside the benchmark


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("network", "least_db", "most_bytes"), [("res", 37.0, 480_000), ("mbn", 33.5, 217_000)])
def test_default_options_reach_the_quality_and_size_wanted(
    tmp_path: Path, network: str, least_db: float, most_bytes: int
) -> None:
    with np.load(DIGITS / "digits32.npz") as digits:
        images = {name: (digits[name][:, None] / 255).astype(np.float32) for name in ("calibration", "test")}
    np.savez(tmp_path / "samples.npz", x=images["calibration"])
    result = convert(DIGITS / f"{network}.onnx", tmp_path / "samples.npz", tmp_path / "out")
    eight = [variant for variant in result.manifest.variants if variant.id in INT8]
    assert eight, result.findings.refusals
    best = max(eight, key=lambda variant: variant.latency.speedup)
    sessions = [open_session(path.read_bytes()) for path in (DIGITS / f"{network}.onnx", result.directory / best.model)]
    expected, found = (
        np.concatenate([session.run(None, {session.get_inputs()[0].name: image[None]})[0] for image in images["test"]])
        for session in sessions
    )
    noise = np.square(found.astype(np.float64) - expected).sum()
    assert 10 * np.log10(np.square(expected.astype(np.float64)).sum() / noise) >= least_db
    assert result.manifest.file(best.model).size_bytes <= most_bytes
    assert best.latency.speedup > 1.0


@dataclass
class Row:
    tool: str
    speed: float | None = 1.0
    sqnr_db: float | None = None
    figures: dict[str, float] = field(default_factory=lambda: {"augmented": 0.99, "size_kB": 400.0})
    problem: str | None = None


def test_a_figure_is_met_by_one_variant_or_said_to_be_missed_on_that_processor() -> None:
    base = Row("float (as it came)")
    fast, dull = Row("autoglm-edge: int8", 3.0, 41.0), Row("autoglm-edge: int8-mixed", 1.5, 30.0)
    met, pruned = verdicts("res", [base, dull, fast], "AVX2, VNNI")
    assert met == "figure wanted, 2.97x, 37 dB: met on AVX2, VNNI"
    assert pruned.endswith("not met on AVX2, VNNI, no such variant")
    missed, _ = verdicts("res", [base, dull], "AVX2, no VNNI")
    assert missed.endswith("not met on AVX2, no VNNI: 1.50x, 30.0 dB (autoglm-edge: int8-mixed)")
    lossy = Row("autoglm-edge --prune auto: int8-pruned", 5.0, 20.0, {"augmented": 0.98, "size_kB": 100.0})
    assert "98.00%" in verdicts("res", [base, fast, lossy], "x")[1]
    assert verdicts("another", [base], "x") == []
