"""Samples and models that several tests of the converter share."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from tests.converter.graphs import DIGITS, write_digits
from tests.fakes.shared import shared

from autoglm_edge_converter import ConversionResult, Options, convert


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """60 samples: enough to split, few enough to be quick."""
    return write_digits(tmp_path / "samples.npz", 60)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> ConversionResult:
    """`res` with both variants; tests that write into it take a copy."""
    folder = shared(tmp_path_factory, "res", _convert_res)
    result = pickle.loads((folder / "result").read_bytes())
    assert isinstance(result, ConversionResult)
    return result


def _convert_res(folder: Path) -> None:
    samples = write_digits(folder / "samples.npz", 90)
    result = convert(DIGITS / "res.onnx", samples, folder / "bundles", Options(max_drop=0.05))
    (folder / "result").write_bytes(pickle.dumps(result))
