from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.model_bundles import make_model_bundle

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.inference.asking import understand
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.messages import Request, Response, json_response
from autoglm_edge_agent.inference.oip import InferenceApi
from autoglm_edge_agent.inference.service import Service
from autoglm_edge_agent.inference.tensors import encode_output
from autoglm_edge_agent.inference.terms import Terms
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.manifest import Manifest, TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]
PATH = "/v2/models/linear"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(make_model_bundle(tmp_path_factory.mktemp("bundle"), width=3).directory)


def _ask(manifest: Manifest, method: str, target: str, body: bytes = b"") -> Response:
    async def run(inputs: Sequence[Array], _terms: Terms) -> list[Array]:
        if inputs[0].size and inputs[0].flat[0] == 7:
            raise RequestError(503, "busy")
        return [inputs[0].sum(axis=-1, keepdims=True).astype(np.float32) * np.ones(10, np.float32)]

    return asyncio.run(
        InferenceApi(Service(manifest, manifest.variants[0], run)).answer(Request(method, target, body=body))
    )


def _body(**changes: Any) -> bytes:
    item = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3], **changes}
    return json.dumps({"inputs": [{key: value for key, value in item.items() if value is not None}]}).encode()


GOOD: list[tuple[str, str, bytes]] = [
    ("GET", "/v2", b""),
    ("GET", "/v2/", b""),
    ("HEAD", "/v2/health/live", b""),
    ("GET", "/v2/health/ready?x=1", b""),
    ("GET", PATH, b""),
    ("GET", f"{PATH}/ready", b""),
    ("GET", f"{PATH}/versions/1.0.0", b""),
    ("POST", f"{PATH}/infer", _body()),
    ("POST", f"{PATH}/versions/1.0.0/infer", _body()),
    ("POST", f"{PATH}/infer", _body(data=[[1, 2.5, True]])),
    ("POST", f"{PATH}/infer", _body(shape=[0, 3], data=[])),
]

BAD: list[tuple[int, str, str, bytes]] = [
    (404, "GET", "/", b""),
    (404, "GET", "/v1/models/linear", b""),
    (404, "GET", "/v2/models", b""),
    (404, "GET", "/v2/models/other", b""),
    (404, "GET", f"{PATH}/versions/9", b""),
    (404, "GET", f"{PATH}/versions", b""),
    (404, "GET", f"{PATH}/nothing", b""),
    (404, "GET", "http://x/v2", b""),
    (404, "OPTIONS", "*", b""),
    (405, "POST", "/v2", b""),
    (405, "GET", f"{PATH}/infer", b""),
    (405, "DELETE", PATH, b""),
    (503, "POST", f"{PATH}/infer", _body(data=[7, 7, 7])),
    *(
        (400, "POST", f"{PATH}/infer", body)
        for body in (
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff\xfe\x00",
            b"{" * 100_000,
            b'{"inputs": {}}',
            b'{"inputs": []}',
            b'{"inputs": [1]}',
            b'{"inputs": [{}]}',
            b'{"id": 5, "inputs": []}',
            _body(name="z"),
            _body(name=None),
            _body(name=["x"]),
            _body(name={"x": 1}),
            _body(shape=None),
            _body(shape=[3]),
            _body(shape=[1, 4]),
            _body(shape=[-1, 3]),
            _body(shape=[True, 3]),
            _body(shape=[1.0, 3]),
            _body(shape=[10**30, 3]),
            _body(shape=[2, 3]),
            _body(datatype=None),
            _body(datatype="FP64"),
            _body(datatype=["FP32"]),
            _body(data=None),
            _body(data="abc"),
            _body(data=["a", "b", "c"]),
            _body(data=[None, 1, 2]),
            _body(data=[[1], [2, 3]]),
            _body(data=[1, 2, 10**400]),
            _body(data=[{}, {}, {}]),
            b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": '
            + b"[" * 500
            + b"]" * 500
            + b"}]}",
            json.dumps({"inputs": json.loads(_body())["inputs"] * 2}).encode(),
            json.dumps({**json.loads(_body()), "outputs": 3}).encode(),
            json.dumps({**json.loads(_body()), "outputs": [3]}).encode(),
            json.dumps({**json.loads(_body()), "outputs": [{}]}).encode(),
            json.dumps({**json.loads(_body()), "outputs": [{"name": ["y"]}]}).encode(),
            json.dumps({**json.loads(_body()), "outputs": [{"name": "z"}]}).encode(),
            json.dumps({**json.loads(_body()), "outputs": [{"name": "y"}] * 2}).encode(),
        )
    ),
]


@pytest.mark.parametrize(("method", "target", "body"), GOOD)
def test_what_is_right_is_answered(manifest: Manifest, method: str, target: str, body: bytes) -> None:
    response = _ask(manifest, method, target, body)
    assert response.status == 200, response.body
    assert "error" not in json.loads(b"".join(response.pieces))


@pytest.mark.parametrize(("status", "method", "target", "body"), BAD)
def test_what_is_wrong_is_one_clear_error(
    manifest: Manifest, status: int, method: str, target: str, body: bytes
) -> None:
    response = _ask(manifest, method, target, body)
    error = json.loads(b"".join(response.pieces))["error"]
    assert response.status == status, error
    assert error and "\n" not in error


def test_the_id_and_the_outputs_come_back(manifest: Manifest) -> None:
    body = {**json.loads(_body()), "id": "abc", "outputs": [{"name": "y"}]}
    response = _ask(manifest, "POST", f"{PATH}/infer", json.dumps(body).encode())
    answer = json.loads(b"".join(response.pieces))
    assert (answer["id"], answer["model_version"]) == ("abc", "1.0.0")
    assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 10], "data": [6.0] * 10}]


JSON_VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["x", "FP32"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=10,
)
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(st.just("x"), JSON_VALUES),
        "shape": st.one_of(st.just([1, 3]), st.lists(st.integers(-2, 2**70), max_size=3), JSON_VALUES),
        "datatype": st.one_of(st.just("FP32"), JSON_VALUES),
        "data": st.one_of(st.lists(st.floats(), min_size=3, max_size=3), JSON_VALUES),
    },
)
REQUESTS = st.one_of(
    st.binary(max_size=60),
    JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"inputs": st.one_of(st.lists(ITEMS, max_size=2), JSON_VALUES)},
        optional={"outputs": JSON_VALUES, "id": JSON_VALUES},
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=REQUESTS, path=st.one_of(st.just(f"{PATH}/infer"), st.text(max_size=20)))
def test_any_request_gets_json_and_a_client_s_fault_is_4xx(manifest: Manifest, body: bytes, path: str) -> None:
    response = _ask(manifest, "POST", path, body)
    value = json.loads(b"".join(response.pieces))
    assert isinstance(value, dict)
    if response.status == 500:  # NaN or infinity went in, and came out
        assert value["error"].startswith("the result holds NaN")
    else:
        assert response.status in (200, 400, 404, 405, 503)


EDGES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    **{
        name: [int(np.iinfo(np.dtype(kind)).min), int(np.iinfo(np.dtype(kind)).max)]
        for name, kind in DATATYPES.items()
        if np.dtype(kind).kind in "iu"
    },
    "FP32": [1.5, -3e38],
    "FP64": [1.5, -1e308],
    "BYTES": ["a", "\u00fc\U0001f600"],
}


@pytest.mark.parametrize("datatype", EDGES)
def test_every_datatype_survives_the_way_through_json(datatype: str) -> None:
    spec = TensorSpec(name="x", datatype=datatype, shape=(-1,))
    item = {"name": "x", "datatype": datatype, "shape": [2], "data": EDGES[datatype]}
    (array,) = understand({"inputs": [item]}, [spec], []).read()
    if datatype != "BYTES":
        assert array.dtype == DATATYPES[datatype]
    back = json.loads(bytes(json_response(200, encode_output(spec, array)).pieces[0]))
    if datatype == "FP32":
        np.testing.assert_allclose(back["data"], item["data"], rtol=1e-7)  # half a unit in the last place of 24 bits
    else:
        assert back["data"] == json.loads(json.dumps(item["data"]))


OUT_OF_RANGE = [
    (name, value)
    for name, edges in EDGES.items()
    if name.startswith(("INT", "UINT"))
    for value in (edges[0] - 1, edges[1] + 1, 0.5, "1")
] + [("BOOL", 1), ("BYTES", 1), ("BYTES", None)]


@pytest.mark.parametrize(("datatype", "value"), OUT_OF_RANGE)
def test_a_value_that_the_datatype_cannot_hold_is_refused(datatype: str, value: Any) -> None:
    item = {"name": "x", "datatype": datatype, "shape": [1], "data": [value]}
    with pytest.raises(RequestError) as caught:
        understand({"inputs": [item]}, [TensorSpec(name="x", datatype=datatype, shape=(-1,))], [])
    assert caught.value.status == 400
