"""The command `convert` for targets with two TFLite runtimes, the older of which reads fewer operators."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.converter.graphs import DIGITS
from tests.converter.kept_environments import kept_environments
from tests.converter.tflite.files import MBN

from autoglm_edge_converter.tflite.editing import serialize, unpack
from autoglm_edge_converter.tflite.flatbuffer import read_model
from autoglm_edge_converter.tflite.operators import unreadable
from autoglm_edge_converter.tflite.schema import tables

__all__ = ["kept_environments"]

NEW = "tflite-runtime 2.14 reads FULLY_CONNECTED up to version 10, the file has version {}"


def convert(model: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    with np.load(DIGITS / "digits32.npz") as digits:
        np.savez(folder / "s.npz", x=digits["test"][:60, :, :, None].astype(np.float32) / 255)
    command = [sys.executable, "-c", "from autoglm_edge.app import main; main()", "convert", str(model)]
    given = ["--calibration", str(folder / "s.npz"), "--output", str(folder / "out"), "--max-drop", "0.1"]
    return subprocess.run([*command, *given, "--no-cache", *more], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_what_tflite_runtime_cannot_load_is_made_again_with_older_operators(tmp_path: Path) -> None:
    # Who asks for size gets a smaller variant on every processor, however fast its 8-bit kernels are.
    done = convert(MBN, tmp_path, "--target", "rpi4", "--max-size", "1MB", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    tried: dict[str, dict[str, Any]] = {entry["recipe"]: entry for entry in found["tried"]}
    assert NEW.format(12) in tried["ranges found at each run"]["problem"]
    assert tried["ranges found at each run, fully connected per tensor"]["sqnr_db"] > 35
    assert len(found["variants"]) > 1
    for variant in found["variants"]:
        assert "loaded and run in litert 1.0, tflite 2.14" in " ".join(variant["notes"])
        (file,) = (tmp_path / "out").glob(f"*/variants/{variant['id']}/*.tflite")
        assert unreadable(read_model(file.read_bytes()), "tflite", "2.14") == ()


def test_an_operator_that_no_recipe_makes_older_is_named_and_nothing_is_tried(tmp_path: Path) -> None:
    """LiteRT 1.0 reads FULLY_CONNECTED 11."""
    changed = unpack(MBN.read_bytes())
    number = tables.BuiltinOperator.FULLY_CONNECTED
    next(code for code in changed.operatorCodes if code.builtinCode == number).version = 11
    model = tmp_path / "new.tflite"
    model.write_bytes(serialize(changed))
    assert unreadable(read_model(model.read_bytes()), "litert", "1.0") == ()
    done = convert(model, tmp_path, "--target", "rpi4", "--tables-only")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("autoglm-edge: ")
    assert NEW.format(11) in last
