"""The benchmark against the peers: its script makes a table that holds what was measured, a model at a time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoglm_edge_converter.processor import own_words

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "conversion" / "run.py"


def run(output: Path, cache: Path, *words: str) -> str:
    command = [sys.executable, str(SCRIPT), "--output", str(output), "--cache", str(cache), *words]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    return output.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_section_is_written_and_the_others_stay(tmp_path: Path) -> None:
    output = tmp_path / "RESULTS.md"
    output.write_text(
        "# Results\n\n## Elsewhere\n\nits introduction\n\n### other\n\nkept as it is\n\n"
        "## Conversion of ONNX models\n\nold text\n\n### res\n\nstays\n\n"
        f"### mbn ({own_words() or 'this processor'})\n\nold figures\n\n### mbn (another processor)\n\nstays, too\n",
        encoding="utf-8",
    )
    text = run(output, tmp_path / "cache", "--models", "mbn", "--peers", "")
    assert "old figures" not in text
    assert "## Elsewhere\n\nits introduction\n\n### other\n\nkept as it is\n" in text
    assert "### res\n\nstays\n" in text
    assert "### mbn (another processor)\n\nstays, too\n" in text
    (float_row,) = re.findall(r"^\| float \(as it came\) \| (.+) \|$", text, re.MULTILINE)
    cells = float_row.split(" | ")
    # The float accuracies of this network on the augmented and the test images, as trained.
    assert cells[:2] == ["98.21%", "99.44%"]
    assert cells[2] == "identical"
    rows = re.findall(r"^\| autoglm-edge.*\|$", text, re.MULTILINE)
    assert rows
    assert str(tmp_path) not in text


def test_every_peer_has_an_environment_with_requirements() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import run, peer; "
        "assert set(run.ENVIRONMENT_OF) == set(peer.PEERS); "
        "assert all(run.requirements(name) for name in run.ENVIRONMENT_OF.values())"
    )
    subprocess.run([sys.executable, "-c", program, str(SCRIPT.parent)], check=True)
    assert "://" not in (SCRIPT.parent / "requirements.txt").read_text(encoding="utf-8")
