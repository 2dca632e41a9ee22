"""The example with a detector: fetched, converted and drawn as its page says, the boxes counted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.converter.examples.modules import EXAMPLES, example_module
from tests.converter.kept_environments import KEPT

from autoglm_edge_converter.tensors import Array

EXAMPLE = EXAMPLES / "detector_tflite"
ssd = example_module("detector_tflite", "ssd")
CONVERT = [sys.executable, "-c", "from autoglm_edge.app import main; main()", "convert"]


def raw(offsets: dict[int, float]) -> dict[str, Array]:
    """Answers with anchors' own boxes, certain of class 4 at those given, moved down by so many heights."""
    encodings, logits = np.zeros((1, 1917, 4), np.float32), np.full((1, 1917, 24), -9, np.float32)
    for anchor, moved in offsets.items():
        encodings[0, anchor, 0], logits[0, anchor, 4] = moved * 10, 9
    return {ssd.BOXES: encodings, ssd.CLASSES: logits}


def test_anchors_cover_the_picture_grid_by_grid() -> None:
    assert ssd.anchors().shape == (1917, 4)
    assert np.allclose(ssd.anchors()[0], (0.5 / 19, 0.5 / 19, 0.1, 0.1))
    # The last grid has one place, in the middle.
    assert np.allclose(ssd.anchors()[-6:, :2], 0.5)


def test_a_sure_anchor_gives_its_own_box_and_its_double_goes() -> None:
    answers = raw({1911: 0.0})
    found = ssd.decode(answers[ssd.BOXES][0], answers[ssd.CLASSES][0])
    assert found.classes.tolist() == [4]
    assert np.allclose(found.boxes[0], (0.5 - 0.475, 0.5 - 0.475, 0.975, 0.975), atol=1e-6)
    both = raw({1911: 0.0, 1916: 0.0})
    assert len(ssd.decode(both[ssd.BOXES][0], both[ssd.CLASSES][0]).boxes) == 1


def test_the_metric_counts_lost_moved_and_new_boxes() -> None:
    one = raw({1911: 0.0})
    assert ssd.boxes_kept([one], [one], None) == 1
    assert ssd.boxes_kept([one], [raw({})], None) == 0
    assert ssd.boxes_kept([one], [raw({1911: 0.6})], None) == 0
    assert ssd.boxes_kept([one], [raw({1911: 0.1})], None) == 1
    assert ssd.boxes_kept([one, raw({})], [one, one], None) == pytest.approx(2 / 3)
    assert ssd.boxes_kept([raw({})], [raw({})], None) == 1


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4), min_size=1, max_size=8))
def test_everything_matches_itself(corners: list[tuple[float, ...]]) -> None:
    ends = np.array(corners, np.float32)
    boxes = np.concatenate([np.minimum(ends[:, :2], ends[:, 2:]), np.maximum(ends[:, :2], ends[:, 2:]) + 0.01], axis=1)
    kinds = np.arange(len(boxes))
    found = ssd.Detections(boxes, np.ones(len(boxes), np.float32), kinds)
    assert ssd.matched(found, found) == len(boxes)
    assert np.allclose([ssd.overlaps(boxes[[n]], boxes[n])[0] for n in range(len(boxes))], 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nearly_all_boxes_are_kept_on_8_bits(tmp_path: Path) -> None:
    folder = KEPT / "examples" / "detector"
    subprocess.run([sys.executable, str(EXAMPLE / "prepare.py"), str(folder)], check=True)
    level = ["--mean", "127.5,127.5,127.5", "--std", "127.5,127.5,127.5"]
    judged = ["--metric", f"{EXAMPLE / 'ssd.py'}:boxes_kept", "--max-drop", "0.05", "--budget-s", "60", "--no-cache"]
    # Who asks for size gets the smaller variant also where it is a little slower than float on this processor.
    judged += ["--max-size", "25MB"]
    given = [str(folder / "ssd_mobilenetv2_oidv4.tflite"), "--calibration", str(folder / "pictures")]
    done = subprocess.run(
        [*CONVERT, *given, *level, *judged, "--json", "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _check_that_8_bit_arithmetic_was_found(json.loads(done.stdout))
    target = tmp_path / "boxes.png"
    bundle = tmp_path / "ssd_mobilenetv2_oidv4-1.0.0"
    drawing = [sys.executable, str(EXAMPLE / "draw.py"), str(folder), str(bundle), str(target)]
    drawn = subprocess.run(drawing, capture_output=True, text=True, check=True)
    counts = re.match(r"(\d+) of the original's (\d+) boxes on pictures held out", drawn.stdout)
    assert counts is not None
    kept, total = (int(number) for number in counts.groups())
    assert total >= 100
    assert kept >= 0.95 * total  # at an overlap of 0.5; the budget of the conversion
    with Image.open(target) as picture:
        assert picture.size[0] > 2 * 300
        assert len(np.unique(np.asarray(picture))) > 200


def _check_that_8_bit_arithmetic_was_found(found: dict[str, Any]) -> None:
    """With its ends in float the network computes on 8 bits within the budget; shipped where that is faster."""
    computing = [entry for entry in found["tried"] if entry["recipe"].startswith(("min-max", "least-error"))]
    islands = [entry for entry in computing if entry["float_nodes"] and (entry["value"] or 0) >= 0.95]
    assert islands, computing
    shipped = [variant["id"] for variant in found["variants"]]
    if not any(name.startswith("tflite-int8") for name in shipped):
        said = json.dumps({key: value for key, value in found.items() if key != "tried"})
        assert "than float here" in said, said
