"""The agent and the one runtime that 32-bit ARM has, translated by qemu."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tests.boards.converted import LEAST_SQNR_DB, Converted, ask, here, sqnr_db
from tests.boards.emulated_tests import ON_ARMV7, run_tests
from tests.boards.qemu_user import EmulatedBoard
from tests.fakes.brokers import Broker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_converted_bundle_gives_the_answers_that_it_gives_here(
    armv7: EmulatedBoard, tflite_bundle: Converted
) -> None:
    start = partial(armv7.start, given=tflite_bundle.packed.parent)
    answers = ask(tflite_bundle, f"/given/{tflite_bundle.packed.name}", start)
    reference = ask(tflite_bundle, str(tflite_bundle.packed), here)
    assert sqnr_db(reference, answers) > LEAST_SQNR_DB
    assert (answers.argmax(axis=1) == reference.argmax(axis=1)).all()


def test_some_of_the_agents_own_tests_pass(armv7: EmulatedBoard, tmp_path: Path) -> None:
    with Broker("mosquitto", tmp_path / "broker") as broker:
        assert run_tests(armv7, ON_ARMV7, broker.url) > 20
