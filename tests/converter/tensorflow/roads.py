"""Going the roads of TensorFlow in tests, and comparing the files that they write.

`go` stays in the tests' process, where TensorFlow is loaded already; `go_alone` starts the program as the command does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from autoglm_edge_converter.roads.tensorflow_program import answer, read_request
from autoglm_edge_converter.runners import open_runner
from autoglm_edge_converter.tensors import Array, Feed

DIGITS = Path(__file__).parents[3] / "examples" / "digits"

FLOAT_TOLERANCE = 1e-4
"""Between float answers of order 1 to 10 from kernels that add in another order."""


@dataclass(frozen=True)
class Journey:
    """What a road program printed."""

    status: int
    last: Mapping[str, Any]
    steps: Sequence[str]

    @property
    def departure(self) -> Mapping[str, Any]:
        departure: Mapping[str, Any] = self.last["departure"]
        return departure

    def path(self, format_: str) -> Path:
        (found,) = (entry for entry in self.departure["renditions"] if entry["format"] == format_)
        assert found["problem"] is None, found
        return Path(found["path"])

    def problem(self, format_: str) -> str | None:
        (found,) = (entry for entry in self.departure["renditions"] if entry["format"] == format_)
        problem: str | None = found["problem"]
        return problem


def go(road: str, model: Path, scratch: Path, **request: Any) -> Journey:
    """Go a road in this process."""
    place = _write_request(model, scratch, request)
    lines: list[Mapping[str, Any]] = []
    module = import_module(f"autoglm_edge_converter.roads.{road}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries warn of, the program leaves to standard error
        status = answer(module.road, read_request(place), lines.append)
    return _journey(status, json.loads(json.dumps(lines)))


def go_alone(road: str, model: Path, scratch: Path, **request: Any) -> Journey:
    """Run a road program; every line that it prints must be one JSON document."""
    place = _write_request(model, scratch, request)
    command = [sys.executable, "-m", f"autoglm_edge_converter.roads.{road}", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    return _journey(done.returncode, lines)


def _write_request(model: Path, scratch: Path, request: Mapping[str, Any]) -> Path:
    scratch.mkdir(exist_ok=True)
    place = scratch / "request.json"
    document = {"model": str(model), "scratch": str(scratch), "formats": ["onnx", "tflite"], "shapes": {}, **request}
    place.write_text(json.dumps(document))
    return place


def _journey(status: int, lines: Sequence[Mapping[str, Any]]) -> Journey:
    return Journey(status, lines[-1], [line["step"] for line in lines if "step" in line])


def assert_same_answers(journey: Journey, feed: Feed, tolerance: float = FLOAT_TOLERANCE) -> Sequence[Array]:
    """Compare both formats with the original framework, by the names and the order of the departure."""
    assert {port["name"] for port in journey.departure["inputs"]} == set(feed)
    reference = open_runner(Path(journey.departure["runnable"])).run(feed)
    for format_ in ("onnx", "tflite"):
        found = open_runner(journey.path(format_)).run(feed)
        assert len(found) == len(reference) == len(journey.departure["outputs"])
        for ours, theirs in zip(found, reference, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=tolerance)
    return reference
