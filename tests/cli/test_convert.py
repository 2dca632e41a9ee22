"""The command `convert` as a user runs it: exit codes, one line per mistake, JSON and nothing else."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import DIGITS, int8_in, linear, linear_samples, write_digits

COMMAND = [sys.executable, "-c", "from autoglm_edge.app import main; main()"]


def convert(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "convert", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]  # options of run


def test_json_is_all_that_is_printed(tmp_path: Path) -> None:
    samples = write_digits(tmp_path / "s.npz", 60)
    arguments = ("--calibration", samples, "--output", tmp_path / "out", "--max-drop", "0.2", "--json")
    done = convert(DIGITS / "res.onnx", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["complete"] is True
    names = [variant["id"] for variant in found["variants"]]
    assert names == ["fp32", int8_in(names)]
    assert Path(found["packed"]).is_file()
    assert Path(found["report"]).is_file()
    assert found["tried"]


def test_an_int8_variant_that_cannot_be_had_is_exit_code_3(tmp_path: Path) -> None:
    """A product with a vector has no constant weights of two axes worth quantizing."""
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"])],
        "softmax",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 8))],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    done = convert(
        tmp_path / "m.onnx", "--calibration", linear_samples(tmp_path / "s.npz"), "--output", tmp_path / "out"
    )
    assert done.returncode == 3, done.stderr
    assert "no int8 variant" in done.stdout
    assert (tmp_path / "out" / "m-1.0.0.bundle").is_file()


@pytest.mark.parametrize(
    ("model", "samples", "more", "says"),
    [
        ("text", "good", (), "not an ONNX model, or is cut short"),
        ("good", "missing", (), "does not exist: give .npz"),
        ("good", "bytes", (), "is uint8, the model takes float32"),
        ("good", "single", (), "1 calibration sample, at least 3 are needed"),
        ("good", "good", ("--precision", "int4"), "choose fp32 or fp16 or int8"),
        ("good", "good", ("--max-drop", "7"), "--max-drop is a fraction"),
        ("good", "good", ("--shape", "x=9,9"), "the model takes [?,8], not [9,9]"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, model: str, samples: str, more: tuple[str, ...], says: str) -> None:
    (tmp_path / "text.onnx").write_text("this is no model, " * 20)
    linear(tmp_path / "good.onnx")
    linear_samples(tmp_path / "good.npz")
    linear_samples(tmp_path / "single.npz", 1)
    np.savez(tmp_path / "bytes.npz", x=np.zeros((9, 8), np.uint8))
    where = ("--calibration", tmp_path / f"{samples}.npz", "--output", tmp_path / "out")
    done = convert(tmp_path / f"{model}.onnx", *where, *more)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("autoglm-edge: ")
    assert says in last
    assert not list(tmp_path.glob("out/*"))


def test_a_shape_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    done = convert(linear(tmp_path / "m.onnx"), "--calibration", tmp_path, "--output", tmp_path, "--shape", "x=a,b")
    assert done.returncode == 2
    assert "NAME=1,3,224,224" in done.stderr


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """No file may grow beyond 64 KB, which is how a quota or a full disk meets the first large write."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))

    samples = write_digits(tmp_path / "s.npz", 60)
    where = ("--calibration", samples, "--output", tmp_path / "out")
    done = convert(DIGITS / "res.onnx", *where, preexec_fn=limit)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert not list(tmp_path.glob("out/*"))


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    samples = write_digits(tmp_path / "s.npz", 400)
    command = [*COMMAND, "convert", str(DIGITS / "res.onnx"), "--calibration", str(samples)]
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "out").exists():
        time.sleep(0.01)
    time.sleep(0.7)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert list((tmp_path / "out").iterdir()) == []


def test_the_help_teaches() -> None:
    done = convert("--help", env=os.environ | {"COLUMNS": "160"})
    assert done.returncode == 0
    for word in ("--calibration", "Exit codes", "--max-drop", "Example"):
        assert word in done.stdout


def test_a_conversion_that_is_terminated_leaves_nothing_behind(tmp_path: Path) -> None:
    samples = write_digits(tmp_path / "s.npz", 60)
    scratch, output = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    words = ["convert", str(DIGITS / "res.onnx"), "--calibration", str(samples), "--output", str(output), "--no-cache"]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    process = subprocess.Popen([*COMMAND, *words], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(scratch.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 143
    assert list(scratch.iterdir()) == []
    assert not list(output.glob("*"))
