"""Every example on the page about data is understood by the program it is meant for."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tomllib
import typer.main

from autoglm_edge.app import build
from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.data.reading import open_data
from autoglm_edge_converter.data.steps import audio_steps, image_steps
from autoglm_edge_converter.metrics.choice import check_name
from autoglm_edge_converter.metrics.custom import load_metric
from autoglm_edge_converter.metrics.shares import wilson
from autoglm_edge_converter.tensors import Port

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    autoglm-edge ((?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
IMAGE = Port("x", "float32", (None, 3, 224, 224))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    words = shlex.split(command.replace("\\\n", " "))
    group = typer.main.get_command(build())
    convert = group.get_command(None, words[0])  # type: ignore[attr-defined]  # a group, as it has commands
    context = convert.make_context(words[0], words[1:])
    given = {name: context.params[name] for name in ("resize", "crop", "colour", "layout", "mean", "std", "scale")}
    check_name(context.params["metric"])
    port = Port("x", "float32", (None, 224, 224, 3)) if given["layout"] == "nhwc" else IMAGE
    image_steps(DataOptions(**given), port)


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "toml"])
def test_files_of_steps_are_understood(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    options = DataOptions(preprocess=tmp_path / "s.toml")
    tables = tomllib.loads(text)
    if "image" in tables:
        steps = image_steps(options, IMAGE).steps
        assert (steps.fit, str(steps.resize), str(steps.crop)) == ("cover", "256x256", "224x224")
    else:
        assert audio_steps(options, Port("wave", "float32", (None, 8000))).steps.window == 16000


def test_the_functions_do_what_the_page_says(tmp_path: Path) -> None:
    samples, metric = (text for kind, text in BLOCKS if kind == "python")
    (tmp_path / "my_data.py").write_text(samples)
    dataset = open_data(
        Path(f"{tmp_path / 'my_data.py'}:samples"), [Port("x", "float32", (None, 1, 32, 32))], DataOptions()
    )
    assert len(dataset) == 300
    assert dataset.labels is not None
    (tmp_path / "my_metric.py").write_text(metric)
    judged = load_metric(f"{tmp_path / 'my_metric.py'}:mean_error", ["depth"])
    depth = np.ones((1, 4, 4), np.float32)
    figure = judged.figure(((depth,),), ((depth * np.float32(0.75),),), None, intervals=False)
    assert (figure.value, figure.baseline) == (0.75, 1.0)


def test_the_figures_of_the_page_hold() -> None:
    assert wilson(36, 36)[0] > 0.90
    assert len(COMMANDS) >= 6
