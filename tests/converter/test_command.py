"""The command in the report that makes a bundle again: every option that decides the result is in it."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from autoglm_edge.app import build
from autoglm_edge_converter import Options
from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.operators import CustomOperators, Registerer
from autoglm_edge_converter.report.command import UNTOLD, commands

CHANGED: dict[str, tuple[object, dict[str, object]]] = {
    "max_drop": (0.02, {"max_drop": 0.02}),
    "precisions": (("int8", "fp16"), {"precision": ["int8", "fp16"]}),
    "shapes": ((("x", (1, -1)),), {"shape": ["x=1,-1"]}),
    "states": ((("h", "hn"), ("c", "cn")), {"state": ["h=hn", "c=cn"]}),
    "formats": (("onnx", "tflite"), {"model_format": ["onnx", "tflite"]}),
    "loading": (
        (("state_dict", "a/w.pt"), ("example_inputs", "a/e.npz"), ("signature", "serve")),
        {"state_dict": Path("w.pt"), "example_inputs": Path("e.npz"), "signature": "serve"},
    ),
    "finetune": ("a/train.py:again", {"finetune": "train.py:again"}),
    "labels": (Path("a/labels of mine.txt"), {"labels": Path("labels of mine.txt")}),
    "license": (Path("a/LICENSE"), {"license_file": Path("LICENSE")}),
    "ops": (
        CustomOperators((Path("a/x.so"),), (Registerer(Path("a/y.so"), "Register"),)),
        {"ops": ["x.so", "y.so:Register"]},
    ),
    "int8_io": (True, {"int8_io": True}),
    "metric": ("top1", {"metric": "top1"}),
    "seed": (7, {"seed": 7}),
    "prune": ("0.4", {"prune": "0.4"}),
    "sparsify": (0.5, {"sparsify": 0.5}),
    "max_size_bytes": (1000, {"max_size": "1000"}),
    "max_latency_ms": (2.5, {"max_latency_ms": 2.5}),
    "targets": (("rpi4", "rpi5"), {"target": ["rpi4", "rpi5"]}),
    "run_oldest": (False, {"tables_only": True}),
    "budget_s": (7.0, {"budget_s": 7.0}),
    "workers": (1, {"workers": 1}),
}
"""By field of `Options`: another value, and what the command line makes of the words for it."""

DATA: dict[str, object] = {
    "preprocess": Path("steps.toml"),
    "resize": "32x32",
    "crop": True,
    "colour": "rgb",
    "layout": "nchw",
    "mean": "1,2,3",
    "std": "4,5,6",
    "scale": "1/255",
    "dtype": "float32",
    "label_column": "kind",
}


def understood(options: Options) -> dict[str, Any]:
    words = shlex.split(commands("net", "1.0.0", "m.onnx", "s.npz", options)[0])
    convert = get_command(build()).commands["convert"]  # type: ignore[attr-defined]  # a group
    return dict(convert.make_context("convert", words[2:]).params)


def test_every_option_has_words() -> None:
    """One that is new fails this until the command tells it, or until it is known to be untold."""
    assert {field.name for field in fields(Options)} == CHANGED.keys() | UNTOLD | {"data"}
    assert {field.name for field in fields(DataOptions)} == DATA.keys()


@pytest.mark.parametrize("name", CHANGED)
def test_each_option_is_understood_as_it_was_meant(name: str) -> None:
    value, expected = CHANGED[name]
    assert value != getattr(Options(), name)
    plain, found = understood(Options()), understood(replace(Options(), **{name: value}))  # type: ignore[arg-type]
    assert {key: found[key] for key in found if found[key] != plain[key]} == expected


def test_options_of_data_are_told_too() -> None:
    found = understood(Options(data=DataOptions(**DATA)))  # type: ignore[arg-type]
    assert {name: found[name] for name in DATA} == DATA


def test_what_is_not_changed_is_left_out() -> None:
    words = shlex.split(commands("net", "1.0.0", "m.onnx", "s.npz", Options())[0])
    assert not {"--prune", "--metric", "--crop", "--budget-s", "--tables-only", "--format"} & set(words)
    assert words[:3] == ["autoglm-edge", "convert", "m.onnx"]
