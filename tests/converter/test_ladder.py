"""What a bundle holds and in which order, and what becomes of a variant that the final samples disown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import DIGITS, INT8, int8_in, write_digits

from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.choose import MOST_VARIANTS
from autoglm_edge_converter.rungs import BETTER, FASTEST, SMALLEST
from autoglm_edge_converter.split import split


@pytest.mark.slow
def test_a_pruned_variant_is_shipped_beside_the_better_whole_one(tmp_path: Path) -> None:
    samples = write_digits(tmp_path / "samples.npz", 160)
    result = convert(DIGITS / "res.onnx", samples, tmp_path / "out", Options(max_drop=0.05, prune="0.5"))
    variants = {variant.id: variant for variant in result.manifest.variants}
    order = list(variants)
    assert order[0] == "fp32"
    assert len(order) <= MOST_VARIANTS
    assert "int8-pruned" in order
    whole = int8_in(order)
    assert order.index(whole) < order.index("int8-pruned")
    purposes = {name: variant.notes[0] for name, variant in variants.items() if name != "fp32"}
    assert purposes["int8-pruned"] == FASTEST
    assert purposes[whole] == BETTER
    assert set(purposes.values()) <= {FASTEST, BETTER, SMALLEST}
    fastest = max(variants.values(), key=lambda variant: variant.latency.speedup)
    assert fastest.id == "int8-pruned"
    # 4.2 times against 2.9 on a quiet machine.
    assert 1.0 < variants[whole].latency.speedup < variants["int8-pruned"].latency.speedup
    sizes = [result.manifest.file(variants[name].model).size_bytes for name in ("fp32", whole, "int8-pruned")]
    assert sizes == sorted(sizes, reverse=True)
    noise = [variants[name].quality.sqnr_db["y"] or 999.0 for name in ("fp32", whole, "int8-pruned")]
    assert noise == sorted(noise, reverse=True)
    page = (result.directory / "report.html").read_text(encoding="utf-8")
    assert FASTEST in page
    assert BETTER in page


@pytest.mark.slow
def test_what_fails_on_the_final_samples_is_withdrawn_and_nothing_takes_its_place(tmp_path: Path) -> None:
    count = 240
    images = np.load(write_digits(tmp_path / "plain.npz", count))["x"]
    final = list(split(count, 0).evaluation)
    # Far outside of the ranges that calibration saw, as if the device's camera were another one.
    images[final] = 40 * (images[final] - 0.5)
    np.savez(tmp_path / "samples.npz", x=images)
    result = convert(DIGITS / "res.onnx", tmp_path / "samples.npz", tmp_path / "out", Options(precisions=("int8",)))
    assert [variant.id for variant in result.manifest.variants if variant.id in INT8] == []
    outcomes = [(one.form, one.speedup, one.outcome) for one in result.findings.considered]
    assert len(result.findings.refusals) == 1, outcomes
    refusal = result.findings.refusals[0]
    assert "it was accepted, but loses" in refusal.reason
    assert f"on {len(final)} final samples" in refusal.reason
    assert "it was accepted, but loses" in (result.directory / "report.html").read_text(encoding="utf-8")
