"""The agent and the one runtime that 32-bit ARM has, translated by qemu."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.boards.converted import LEAST_SQNR_DB, Converted, ask, here, sqnr_db
from tests.boards.emulated_tests import ON_ARMV7, run_tests
from tests.boards.locked_wheels import REPOSITORY
from tests.boards.qemu_user import EmulatedBoard
from tests.fakes.brokers import Broker

from autoglm_edge_firmware.package.build import build_package

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PACKAGED = "opt/autoglm-edge"
ALONE = "import sys\nsys.path[:] = [each for each in sys.path if not each.startswith('/usr/local')]\n"
"""Wheels that the root has for tests are not to be found: what the package lacks must be Debian's."""


def test_the_package_gives_the_answers_of_a_converted_bundle_that_are_given_here(
    armv7: EmulatedBoard, tflite_bundle: Converted, tmp_path: Path
) -> None:
    package = build_package("armhf", tmp_path, checkout=REPOSITORY)
    given = tmp_path / "given"
    subprocess.run(["dpkg-deb", "--extract", str(package), str(given)], check=True)
    (given / PACKAGED / "lib/any/sitecustomize.py").write_text(ALONE)
    shutil.copy(tflite_bundle.packed, given)

    def start(name: str, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
        python = ("env", f"PYTHONPATH=/given/{PACKAGED}/lib/any", "python3", "-s")
        return armv7.start(*python, f"/given/{PACKAGED}/bin/{name}", *arguments, given=given)

    answers = ask(tflite_bundle, f"/given/{tflite_bundle.packed.name}", start)
    reference = ask(tflite_bundle, str(tflite_bundle.packed), here)
    assert sqnr_db(reference, answers) > LEAST_SQNR_DB
    assert (answers.argmax(axis=1) == reference.argmax(axis=1)).all()


def test_some_of_the_agents_own_tests_pass(armv7: EmulatedBoard, tmp_path: Path) -> None:
    with Broker("mosquitto", tmp_path / "broker") as broker:
        assert run_tests(armv7, ON_ARMV7, broker.url) > 20
