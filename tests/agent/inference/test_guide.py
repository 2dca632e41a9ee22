"""The commands and programs of docs/inference.md and examples/fast_path, run as they stand there."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.fakes.model_bundles import make_bundle_of
from tests.fakes.onnx_writer import linear_model
from tests.fakes.served_models import ServedModel

from autoglm_edge_protocol.manifest import TensorSpec

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "fast_path"
GUIDE = (ROOT / "docs" / "inference.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```\n\n```text\n(.*?)```", GUIDE, re.DOTALL)
CLIENTS = importlib.util.find_spec("tritonclient") is not None

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fast path is Linux's")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    """The model of the guide: the sum of a row plus 0 to 9."""
    directory = tmp_path_factory.mktemp("guide")
    x = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
    y = TensorSpec(name="y", datatype="FP32", shape=(-1, 10))
    model = linear_model(np.ones((4, 10), np.float32), np.arange(10, dtype=np.float32))
    reference = make_bundle_of(directory / "bundle", "linear", model, (x,), (y,))
    with ServedModel(directory / "bundle", reference, directory, grpc=CLIENTS) as served:
        yield served


def test_the_guide_has_examples_of_every_way() -> None:
    assert [kind for kind, _, _ in BLOCKS] == ["bash", "bash", "python", "python", "python"]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_example_of_the_guide(served: ServedModel, number: int) -> None:
    kind, text, expected = BLOCKS[number]
    if "tritonclient" in text and not CLIENTS:
        pytest.skip("a device has no client of Triton")
    replaced = text.replace("127.0.0.1:8000", served.address)
    replaced = replaced.replace("/run/autoglm-edge/inference.sock", str(served.unix_path))
    replaced = replaced.replace("/run/autoglm-edge/inference.fast", str(served.fast_path))
    if CLIENTS:
        replaced = replaced.replace("127.0.0.1:8001", served.grpc_address)
    assert replaced != text
    command = ["bash", "-euc", replaced] if kind == "bash" else [sys.executable, "-c", replaced]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (found.returncode, found.stdout.strip()) == (0, expected.strip()), found.stderr


def test_measure(served: ServedModel) -> None:
    command = [sys.executable, str(EXAMPLES / "measure.py"), str(served.fast_path), "20"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert found.startswith("linear@1.0.0 fp32: y [1, 10]\n20 requests, p50 ")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_client_in_another_language(served: ServedModel, tmp_path: Path) -> None:
    program = tmp_path / "ask"
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-o", program, EXAMPLES / "ask.c"], check=True, timeout=60)
    command = [str(program), str(served.fast_path), "1", "2", "3", "4"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert found.split() == [str(number) for number in range(10, 20)]
    wrong = subprocess.run([*command, "5"], capture_output=True, text=True, check=False, timeout=60)
    assert wrong.returncode == 1 and "does not fit" in wrong.stderr
