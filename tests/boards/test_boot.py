"""A whole emulated board, from its first boot to a device that serves, and losses of power in the middle of updates."""

from __future__ import annotations

import numpy as np
import pytest
from tests.boards import disks
from tests.boards.converted import LEAST_SQNR_DB, Converted, ask, here, sqnr_db
from tests.boards.sites import CLAIM, BoardSite
from tests.e2e.digits import images

from autoglm_edge_protocol.names import BundleId
from autoglm_edge_protocol.probation import ProbationTerms

TERMS = ProbationTerms(duration_s=5, inferences=1, max_latency_ratio=1000, max_memory_ratio=1000)
"""Latency and memory under translation say nothing."""


def ask_about(site: BoardSite, x: np.ndarray) -> np.ndarray | None:
    body = {"inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]}
    answer = site.infer("digits", body)
    return None if answer is None else np.array(answer["outputs"][0]["data"], np.float32).reshape(len(x), -1)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_bare_board_enrols_pulls_a_bundle_answers_and_reports(site: BoardSite, onnx_bundle: Converted) -> None:
    site.prepare()
    site.fleet.publish(onnx_bundle.packed)
    site.switch_on()
    device = site.wait("enrolled with its claim", site.device).device.name
    site.wait("connected as a device, with its certificate", site.online)
    issued = site.fleet.deploy(BundleId.parse("digits@1.0.0"), [device], onnx_bundle.variant, probation=TERMS)
    x = images(4)
    answers = site.wait("an inference is answered", lambda: ask_about(site, x), 600)
    assert answers is not None
    (ended,) = site.fleet.wait_for_deployments(issued, 600)
    site.note(f"the deployment is {ended.phase}")
    assert ended.phase == "confirmed", ended
    telemetry = site.wait("telemetry of the inference", site.requests)
    assert telemetry >= 1
    assert [claim.state for claim in site.fleet.enrolment.claims()] == ["used"]
    site.machine.cut()
    assert disks.problems(site.machine.disk) == ""
    assert not disks.has(site.machine.disk, CLAIM)
    reference = ask(onnx_bundle, str(onnx_bundle.packed), here)[:4]
    assert sqnr_db(reference, answers) > LEAST_SQNR_DB


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_pi_3_with_its_own_device_tree_enrols_and_reports(pi_3_site: BoardSite) -> None:
    site = pi_3_site
    # It has no clock that goes on without power, so it starts in the past: before its claim and its certificate.
    site.prepare()
    site.switch_on()
    site.wait("enrolled with its claim", site.device, 900)
    site.wait("connected as a device, with its certificate", site.online, 600)
    report = site.wait("it reports", site.report)
    assert report.facts.board.startswith("Raspberry Pi 3 Model B")
