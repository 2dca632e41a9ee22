"""Names of classes in the bundle: from the file given, else from the folders that the samples lie in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.converter.graphs import linear

from autoglm_edge_converter import Options, convert

FOUR = ("ant", "bee", "cat", "dog")


def sorted_samples(folder: Path, classes: tuple[str, ...], count: int = 8) -> Path:
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            values = np.random.default_rng(100 * number + index).normal(size=(1, 8)).astype(np.float32)
            np.save(folder / name / f"{index}.npy", values)
    return folder


@pytest.mark.parametrize(
    ("classes", "written"),
    [
        (FOUR, "ant\nbee\ncat\ndog\n"),
        (FOUR[:3], None),
        (("0", "1", "2", "3"), None),
    ],
    ids=["one for each class of the model", "fewer than the model has", "numbers are no names"],
)
def test_names_of_folders_become_labels(tmp_path: Path, classes: tuple[str, ...], written: str | None) -> None:
    samples = sorted_samples(tmp_path / "samples", classes)
    result = convert(linear(tmp_path / "m.onnx"), samples, tmp_path / "out", Options(precisions=("fp32",)))
    path = result.directory / "labels.txt"
    assert (path.read_text() if path.exists() else None) == written
    assert (result.manifest.labels == "labels.txt") == (written is not None)


def test_a_file_of_names_goes_before_those_of_folders(tmp_path: Path) -> None:
    samples = sorted_samples(tmp_path / "samples", FOUR)
    names = tmp_path / "names.txt"
    names.write_text("dog\ncat\nbee\nant\n")
    options = Options(precisions=("fp32",), labels=names)
    result = convert(linear(tmp_path / "m.onnx"), samples, tmp_path / "out", options)
    assert (result.directory / "labels.txt").read_text() == "dog\ncat\nbee\nant\n"
