"""The agent and both of its runtimes as 64-bit programs on the processor of a Pi 4, translated by qemu."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tests.boards.converted import LEAST_SQNR_DB, Converted, ask, here, sqnr_db
from tests.boards.emulated_tests import CHOSEN, run_tests
from tests.boards.qemu_user import EmulatedBoard
from tests.fakes.brokers import Broker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OLD_RUNTIME = "/opt/onnxruntime-1.21.0"

_LOAD = """
import onnxruntime
onnxruntime.InferenceSession("/checkout/agent/src/autoglm_edge_agent/inference/trial_models/linear.onnx")
print("loaded", onnxruntime.__version__)
"""


@pytest.mark.parametrize("kind", ["onnx_bundle", "tflite_bundle"])
def test_a_converted_bundle_gives_the_answers_that_it_gives_here(
    kind: str, arm64: EmulatedBoard, request: pytest.FixtureRequest
) -> None:
    bundle: Converted = request.getfixturevalue(kind)
    start = partial(arm64.start, given=bundle.packed.parent)
    answers = ask(bundle, f"/given/{bundle.packed.name}", start)
    reference = ask(bundle, str(bundle.packed), here)
    assert sqnr_db(reference, answers) > LEAST_SQNR_DB
    assert (answers.argmax(axis=1) == reference.argmax(axis=1)).all()


def test_an_instruction_that_the_processor_lacks_is_found(arm64: EmulatedBoard) -> None:
    # Releases of ONNX Runtime have been built for newer processors by mistake. Were this one to load, nothing here
    # would show that ours does.
    died = arm64.run("python3", "-c", _LOAD, PYTHONPATH=OLD_RUNTIME)
    assert (died.returncode, "Illegal instruction" in died.stdout, "loaded" in died.stdout) == (132, True, False)
    newer = arm64.run("python3", "-c", _LOAD, PYTHONPATH=OLD_RUNTIME, QEMU_CPU="max")
    assert "loaded 1.21.0" in newer.stdout


def test_the_agents_own_tests_pass(arm64: EmulatedBoard, tmp_path: Path) -> None:
    with Broker("mosquitto", tmp_path / "broker") as broker:
        assert run_tests(arm64, CHOSEN, broker.url) > 250
