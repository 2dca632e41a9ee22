"""The side of a road that stays: real programs that answer, fail, crash and babble."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoglm_edge_converter import errors
from autoglm_edge_converter.original import Rendition
from autoglm_edge_converter.roads.travel import Request, travel
from autoglm_edge_converter.tensors import Port

DEPARTURE = """
import json, sys
request = json.load(open(sys.argv[1]))
print(json.dumps({"step": "load"}), flush=True)
print("a library says hello", flush=True)
print(json.dumps({"departure": {
    "runnable": request["scratch"] + "/m.keras",
    "inputs": [{"name": "x", "dtype": "float32", "shape": [None, 4]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": None}],
    "renditions": [
        {"format": "onnx", "path": None, "road": "tf2onnx 1.17.0", "problem": "operator Foo has no equal"},
        {"format": "tflite", "path": request["scratch"] + "/m.tflite", "road": "TensorFlow 2.21", "pruning": 0.25},
    ],
    "versions": {"tensorflow": "2.21.0"},
    "notes": ["weights are shared"],
}}), flush=True)
"""


class Heard:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def stage(self, name: str, steps: int) -> None: ...

    def step(self, what: str) -> None:
        self.steps.append(what)

    def note(self, text: str) -> None: ...


def program(folder: Path, text: str) -> tuple[str, ...]:
    (folder / "road.py").write_text(text)
    return sys.executable, str(folder / "road.py")


def request(folder: Path) -> Request:
    return Request("net.keras", folder, ("onnx", "tflite"), {"x": (1, 4)}, {})


def test_what_a_program_says_is_told_on_and_its_result_read(tmp_path: Path) -> None:
    heard = Heard()
    found = travel(program(tmp_path, DEPARTURE), request(tmp_path), heard)
    assert (heard.steps, found.notes) == (["load"], ("weights are shared",))
    assert found.inputs == (Port("x", "float32", (None, 4)),)
    assert found.outputs == (Port("y", "float32", None),)
    assert found.renditions == (
        Rendition("onnx", None, "tf2onnx 1.17.0", "operator Foo has no equal"),
        Rendition("tflite", tmp_path / "m.tflite", "TensorFlow 2.21", None, 0.25),
    )
    assert found.versions == {"tensorflow": "2.21.0"}


@pytest.mark.parametrize("kind", ["NotAModel", "BadModel", "BrokenWeights", "BadOption", "UserCodeFailed"])
def test_an_error_keeps_its_kind_and_its_line(kind: str, tmp_path: Path) -> None:
    text = f"import json\nprint(json.dumps({{'error': 'net.keras is cut short', 'kind': {kind!r}}}))"
    with pytest.raises(getattr(errors, kind), match=r"^net.keras is cut short$"):
        travel(program(tmp_path, text), request(tmp_path), Heard())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import os\nos.abort()", "ended by signal 6"),
        ("raise SystemExit('no space left')", "ended with code 1: no space left"),
        ("print('nothing of use')", "ended with code 0"),
    ],
)
def test_a_program_that_ends_without_a_result_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(errors.BadModel, match=words):
        travel(program(tmp_path, text), request(tmp_path), Heard())


def test_an_interruption_ends_the_program(tmp_path: Path) -> None:
    hang = "import os, sys, time\nopen(sys.argv[1] + '.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"
    (tmp_path / "road.py").write_text(hang)
    outer = f"""
import sys
from pathlib import Path
from autoglm_edge_converter.progress import Silent
from autoglm_edge_converter.roads.travel import Request, travel
folder = Path({str(tmp_path)!r})
try:
    travel((sys.executable, str(folder / "road.py")), Request("m", folder, (), {{}}, {{}}), Silent())
except KeyboardInterrupt:
    sys.exit(130)
"""
    with subprocess.Popen([sys.executable, "-c", outer]) as process:
        place = tmp_path / "request.json.pid"
        deadline = time.monotonic() + 60
        while not (place.exists() and place.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.read_text()), 0)
