"""A whole emulated board, from its first boot to a device that serves, and losses of power in the middle of updates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.boards.abilities import why_not
from tests.boards.bootable import disk
from tests.boards.converted import LEAST_SQNR_DB, Converted, ask, here, sqnr_db
from tests.boards.disks import copy_of
from tests.boards.kernels import kernel
from tests.boards.locked_wheels import REPOSITORY
from tests.boards.machines import Machine
from tests.boards.roots import KEPT, PYTHON
from tests.boards.sites import BoardSite, board_site
from tests.e2e.digits import images

from autoglm_edge_firmware.package.build import build_package
from autoglm_edge_protocol.names import BundleId

LOGS = KEPT / "logs"


@pytest.fixture(scope="session")
def board_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with the agent's package, as it is built from this checkout."""
    if reason := why_not("qemu-aarch64"):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("package")
    return disk(build_package("arm64", folder, checkout=REPOSITORY, pythons=(PYTHON,)))


@pytest.fixture
def site(board_disk: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BoardSite]:
    log = LOGS / f"{request.node.name}.serial"
    log.unlink(missing_ok=True)
    machine = Machine(kernel(), copy_of(board_disk, tmp_path / "disk.img"), log)
    with board_site(machine, tmp_path) as site:
        site.prepare()
        yield site
    lines = [f"{seconds:8.1f} s  {what}\n" for seconds, what in site.timeline]
    (LOGS / f"{request.node.name}.timeline").write_text("".join(lines))


def ask_about(site: BoardSite, x: np.ndarray) -> np.ndarray | None:
    body = {"inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]}
    answer = site.infer("digits", body)
    return None if answer is None else np.array(answer["outputs"][0]["data"], np.float32).reshape(len(x), -1)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_bare_board_enrols_pulls_a_bundle_answers_and_reports(site: BoardSite, onnx_bundle: Converted) -> None:
    site.fleet.publish(onnx_bundle.packed)
    site.switch_on()
    device = site.wait("enrolled with its claim", site.device).device.name
    site.wait("connected as a device, with its certificate", site.online)
    issued = site.fleet.deploy(BundleId.parse("digits@1.0.0"), [device], onnx_bundle.variant)
    x = images(4)
    answers = site.wait("an inference is answered", lambda: ask_about(site, x), 600)
    assert answers is not None
    (ended,) = site.fleet.wait_for_deployments(issued, 600)
    site.note(f"the deployment is {ended.phase}")
    assert ended.phase == "confirmed", ended
    telemetry = site.wait("telemetry of the inference", lambda: _requests(site))
    assert telemetry >= 1
    # The claim is used up, and gone from the board.
    assert [claim.state for claim in site.fleet.enrolment.claims()] == ["used"]
    reference = ask(onnx_bundle, str(onnx_bundle.packed), here)[:4]
    assert sqnr_db(reference, answers) > LEAST_SQNR_DB


def _requests(site: BoardSite) -> int:
    status = site.device()
    return status.telemetry.requests if status is not None and status.telemetry is not None else 0
