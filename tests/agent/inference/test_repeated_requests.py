"""A request whose JSON came before is answered as if it had not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.model_bundles import make_model_bundle

from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.messages import Request, Response
from autoglm_edge_agent.inference.oip import HEADER_LENGTH, MOST_KNOWN, InferenceApi
from autoglm_edge_agent.inference.service import Service
from autoglm_edge_agent.inference.terms import Terms
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.manifest import Manifest

Array = np.ndarray[Any, np.dtype[Any]]
BUSY, REFUSED = 77.0, 78.0


def _run(inputs: Sequence[Array], terms: Terms) -> list[Array] | RequestError | None:
    """As many rows as the first number says."""
    first = float(inputs[0].flat[0]) if inputs[0].size else 0.0
    if first == REFUSED:
        return RequestError(503, "too many wait", retry_after_s=1.0)
    rows = int(min(abs(first), 3)) if np.isfinite(first) else 1
    return [np.full((rows, 2), first if terms.timeout_s is None else terms.timeout_s, np.float32)]


async def _wait_and_run(inputs: Sequence[Array], terms: Terms) -> list[Array]:
    outcome = _run(inputs, terms)
    if isinstance(outcome, RequestError):
        raise outcome
    assert outcome is not None
    return outcome


def _run_at_once(inputs: Sequence[Array], terms: Terms) -> list[Array] | RequestError | None:
    return None if inputs[0].size and inputs[0].flat[0] == BUSY else _run(inputs, terms)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(make_model_bundle(tmp_path_factory.mktemp("bundle"), width=3).directory)


def _api(manifest: Manifest) -> InferenceApi:
    return InferenceApi(Service(manifest, manifest.variants[0], _wait_and_run, at_once=_run_at_once))


def _request(values: Sequence[float], cut: int = 0, **more: Any) -> Request:
    data = np.array(values, np.float32).tobytes()
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}, **more}).encode()
    body = header + data[: len(data) - cut]
    return Request("POST", "/v2/models/linear/infer", {HEADER_LENGTH: str(len(header))}, body)


def _answer(api: InferenceApi, request: Request) -> Response:
    return api.at_once(request) or asyncio.run(api.answer(request))


def _whole(response: Response) -> tuple[int, bytes, dict[str, str]]:
    return response.status, b"".join(response.pieces), dict(response.headers)


VALUES = st.sampled_from([0.0, 1.0, 2.0, BUSY, REFUSED, float("nan"), float("inf")])
REQUESTS = st.builds(
    _request,
    st.lists(VALUES, min_size=3, max_size=3),
    st.sampled_from([0, 0, 0, 1, 12]),
    id=st.sampled_from(["a", "b"]),
    outputs=st.sampled_from([[], [{"name": "y"}], [{"name": "y", "parameters": {"binary_data": False}}]]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(REQUESTS, min_size=2, max_size=8))
def test_every_answer_is_the_one_that_a_server_without_a_memory_gives(
    manifest: Manifest, requests: list[Request]
) -> None:
    api = _api(manifest)
    for request in requests:
        assert _whole(_answer(api, request)) == _whole(asyncio.run(_api(manifest).answer(request)))


def test_what_came_before_is_answered_at_once(manifest: Manifest) -> None:
    api = _api(manifest)
    assert api.at_once(_request([1, 2, 3])) is None, "it has not come before"
    asyncio.run(api.answer(_request([1, 2, 3])))
    response = api.at_once(_request([2, 2, 3]))
    assert response is not None and response.status == 200
    assert api.at_once(_request([BUSY, 2, 3])) is None, "the model cannot be asked without a wait"
    refused = api.at_once(_request([REFUSED, 2, 3]))
    assert refused is not None and refused.status == 503


def test_text_data_and_long_requests_are_not_remembered_and_the_memory_is_bounded(
    manifest: Manifest, tmp_path: Path
) -> None:
    api = _api(manifest)
    told = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    asyncio.run(api.answer(Request("POST", "/v2/models/linear/infer", {}, json.dumps(told).encode())))
    asyncio.run(api.answer(_request([1, 2, 3], id="x" * 5000)))
    assert not api._known
    for number in range(MOST_KNOWN + 10):
        asyncio.run(api.answer(_request([1, 2, 3], id=str(number))))
    assert len(api._known) == MOST_KNOWN
