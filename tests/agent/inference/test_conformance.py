"""The real client of Triton against a real worker: every endpoint, every datatype in both encodings, every error."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.fakes.identity_bundles import NAME, edges, make_identity_bundle
from tests.fakes.model_bundles import make_model_bundle
from tests.fakes.onnx_writer import ELEMENTS
from tests.fakes.served_models import ServedModel
from tests.fakes.shared_objects import SharedObject, shared_object

from autoglm_edge_protocol.limits import LIMITS

triton = pytest.importorskip("tritonclient.http", reason="a device has no client of Triton")

Array = npt.NDArray[Any]
VERSION = "1.0.0"
EMPTY = np.empty((0, 0))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    directory = tmp_path_factory.mktemp("served")
    reference = make_identity_bundle(directory / "bundle")
    with ServedModel(directory / "bundle", reference, directory) as served:
        yield served


@pytest.fixture(scope="module")
def client(served: ServedModel) -> Iterator[Any]:
    client = triton.InferenceServerClient(served.address)
    yield client
    client.close()


def _input(datatype: str, array: Array, *, binary: bool = True) -> Any:
    item = triton.InferInput(datatype.lower(), list(array.shape), datatype)
    item.set_data_from_numpy(array, binary_data=binary)
    return item


def _inputs(datatype: str, array: Array, *, binary: bool = True) -> list[Any]:
    """Every input of the model: one with something in it, the others without any element."""
    empty = {name: EMPTY.astype(edges(name).dtype) for name in ELEMENTS if name != datatype}
    return [_input(datatype, array, binary=binary), *(_input(name, each) for name, each in empty.items())]


def _output(datatype: str, *, binary: bool = True) -> Any:
    return triton.InferRequestedOutput(f"{datatype.lower()}_out", binary_data=binary)


# endpoints ----

ENDPOINTS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "server live": (lambda c: c.is_server_live(), True),
    "server ready": (lambda c: c.is_server_ready(), True),
    "server metadata": (lambda c: c.get_server_metadata()["name"], "autoglm-edge-agent"),
    "extensions": (
        lambda c: set(c.get_server_metadata()["extensions"]),
        {"binary_tensor_data", "statistics", "system_shared_memory", "model_configuration", "model_repository"},
    ),
    "model ready": (lambda c: c.is_model_ready(NAME), True),
    "model ready, version": (lambda c: c.is_model_ready(NAME, VERSION), True),
    "model ready, other": (lambda c: c.is_model_ready("other"), False),
    "model ready, other version": (lambda c: c.is_model_ready(NAME, "9"), False),
    "model metadata": (lambda c: c.get_model_metadata(NAME)["versions"], [VERSION]),
    "model metadata, version": (
        lambda c: [item["datatype"] for item in c.get_model_metadata(NAME, VERSION)["inputs"]],
        list(ELEMENTS),
    ),
    "model config": (
        lambda c: {item["data_type"] for item in c.get_model_config(NAME)["input"]},
        {f"TYPE_{'STRING' if name == 'BYTES' else name}" for name in ELEMENTS},
    ),
    "model config, version": (lambda c: c.get_model_config(NAME, VERSION)["platform"], "onnxruntime_onnx"),
    "statistics": (lambda c: c.get_inference_statistics()["model_stats"][0]["name"], NAME),
    "statistics, model": (lambda c: c.get_inference_statistics(NAME)["model_stats"][0]["version"], VERSION),
    "statistics, version": (lambda c: len(c.get_inference_statistics(NAME, VERSION)["model_stats"]), 1),
    "repository": (
        lambda c: c.get_model_repository_index(),
        [{"name": NAME, "version": VERSION, "state": "READY"}],
    ),
    "shared memory": (lambda c: c.get_system_shared_memory_status(), []),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_endpoint(client: Any, endpoint: str) -> None:
    ask, expected = ENDPOINTS[endpoint]
    assert ask(client) == expected


# datatypes ----


@pytest.mark.parametrize("answer", ["binary", "json"])
@pytest.mark.parametrize("question", ["binary", "json"])
@pytest.mark.parametrize("datatype", ELEMENTS)
def test_datatype(client: Any, datatype: str, question: str, answer: str) -> None:
    array = edges(datatype)
    inputs = _inputs(datatype, array, binary=question == "binary")
    outputs = [_output(datatype, binary=answer == "binary")]
    if datatype == "FP16" and "json" in (question, answer):
        with pytest.raises(triton.InferenceServerException, match="JSON carries no FP16") as caught:
            client.infer(NAME, inputs, outputs=outputs)
        assert caught.value.status() == "400"
        return
    found = client.infer(NAME, inputs, outputs=outputs).as_numpy(f"{datatype.lower()}_out")
    if datatype == "BYTES":
        found = [value.decode() if isinstance(value, bytes) else value for value in found.ravel()]
        assert found == array.ravel().tolist()
    else:
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_text_that_is_none_is_refused(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match="element 1 is not UTF-8") as caught:
        client.infer(NAME, _inputs("BYTES", np.array([[b"a", b"\xff\xfe"]], dtype=object)))
    assert caught.value.status() == "400"


def test_a_tensor_without_elements_keeps_its_shape(client: Any) -> None:
    found = client.infer(NAME, _inputs("FP32", np.empty((0, 5), np.float32)), outputs=[_output("FP32")])
    assert found.as_numpy("fp32_out").shape == (0, 5)


# what a request may say besides ----


def test_a_request_says_who_and_how_urgent_it_is(client: Any) -> None:
    array = edges("INT32")
    for priority in (0, 1, 3, 9):
        result = client.infer(
            NAME,
            _inputs("INT32", array),
            model_version=VERSION,
            request_id=f"id-{priority}",
            priority=priority,
            timeout=60_000_000,
        )
        head = result.get_response()
        assert (head["id"], head["model_name"], head["model_version"]) == (f"id-{priority}", NAME, VERSION)
        assert len(head["outputs"]) == len(ELEMENTS)
        assert all("binary_data_size" in each["parameters"] for each in head["outputs"])  # asked for as a whole


def test_only_the_outputs_asked_for_come_and_each_as_asked(client: Any) -> None:
    result = client.infer(
        NAME, _inputs("INT8", edges("INT8")), outputs=[_output("INT8"), _output("FP64", binary=False)]
    )
    first, second = result.get_response()["outputs"]
    assert (first["name"], first["parameters"]) == ("int8_out", {"binary_data_size": 6})
    assert (second["name"], second["data"]) == ("fp64_out", [])


def test_requests_are_counted(client: Any) -> None:
    def counts() -> tuple[int, int]:
        (entry,) = client.get_inference_statistics(NAME)["model_stats"]
        return entry["execution_count"], entry["inference_stats"]["success"]["count"]

    executions, successes = counts()
    client.infer(NAME, _inputs("INT8", edges("INT8")))
    assert counts() == (executions + 1, successes + 1)


# shared memory ----


@pytest.fixture
def region() -> Iterator[SharedObject]:
    with shared_object(4096) as region:
        yield region


def test_infer_through_shared_memory(client: Any, region: SharedObject) -> None:
    key, array = region.key, edges("FP32")
    region.write(array, 64)
    client.register_system_shared_memory("region", key, 4096)
    status = {"name": "region", "key": key, "offset": 0, "byte_size": 4096}
    assert client.get_system_shared_memory_status() == [status]
    assert client.get_system_shared_memory_status("region") == [status]
    first, *others = _inputs("FP32", array)
    first = triton.InferInput("fp32", list(array.shape), "FP32")
    first.set_shared_memory("region", array.nbytes, offset=64)
    wanted = triton.InferRequestedOutput("fp32_out")
    wanted.set_shared_memory("region", array.nbytes, offset=1024)
    result = client.infer(NAME, [first, *others], outputs=[wanted])
    where = {"shared_memory_region": "region", "shared_memory_offset": 1024, "shared_memory_byte_size": array.nbytes}
    assert result.get_output("fp32_out")["parameters"] == where
    np.testing.assert_array_equal(region.read(array, 1024), array)
    with pytest.raises(triton.InferenceServerException, match="already in manager"):
        client.register_system_shared_memory("region", key, 4096)
    wanted.set_shared_memory("region", 8, offset=1024)
    with pytest.raises(triton.InferenceServerException, match="do not hold 24"):
        client.infer(NAME, [first, *others], outputs=[wanted])
    first.set_shared_memory("region", array.nbytes, offset=4090)
    with pytest.raises(triton.InferenceServerException, match="outside shared memory region"):
        client.infer(NAME, [first, *others])
    client.unregister_system_shared_memory("region")
    with pytest.raises(triton.InferenceServerException, match="Unable to find"):
        client.infer(NAME, [first, *others])
    client.register_system_shared_memory("a", key, 1024, offset=1024)
    client.register_system_shared_memory("b", key, 1024)
    client.unregister_system_shared_memory()
    assert client.get_system_shared_memory_status() == []


REGIONS: dict[str, tuple[str, int, int]] = {
    "no such object": ("/autoglm-edge-nowhere", 0, 64),
    "no name": ("/", 0, 64),
    "a path": ("/../etc/passwd", 0, 64),
    "a parent": ("..", 0, 64),
    "no bytes": ("KEY", 0, 0),
    "too many bytes": ("KEY", 0, 4097),
    "an offset outside": ("KEY", 4096, 1),
    "a huge offset": ("KEY", 2**62, 64),
}


@pytest.mark.parametrize("what", REGIONS)
def test_shared_memory_that_cannot_be_registered(client: Any, region: SharedObject, what: str) -> None:
    key, offset, size = REGIONS[what]
    with pytest.raises(triton.InferenceServerException) as caught:
        client.register_system_shared_memory("bad", region.key if key == "KEY" else key, size, offset=offset)
    assert caught.value.status() == "400"
    assert client.get_system_shared_memory_status() == []


# errors that the client itself can make ----

INT8 = edges("INT8")


def _renamed(name: str) -> list[Any]:
    item = triton.InferInput(name, [1, 1], "INT8")
    item.set_data_from_numpy(np.ones((1, 1), np.int8))
    return [item, *_inputs("INT8", INT8)]


def _shaped(shape: list[int]) -> list[Any]:
    items = _inputs("INT8", INT8)
    items[0].set_shape(shape)
    return items


MISTAKES: dict[str, tuple[str, str, Callable[[Any], object]]] = {
    "unknown model": ("404", "unknown model 'other'", lambda c: c.infer("other", _inputs("INT8", INT8))),
    "unknown model's metadata": ("404", "unknown model", lambda c: c.get_model_metadata("other")),
    "unknown model's config": ("404", "unknown model", lambda c: c.get_model_config("other")),
    "unknown model's statistics": ("404", "unknown model", lambda c: c.get_inference_statistics("other")),
    "unknown version": ("404", "'9' is not served", lambda c: c.infer(NAME, _inputs("INT8", INT8), model_version="9")),
    "unknown input": ("400", "no input 'z'", lambda c: c.infer(NAME, _renamed("z"))),
    "input twice": ("400", "given twice", lambda c: c.infer(NAME, _renamed("int8"))),
    "missing input": ("400", "is missing", lambda c: c.infer(NAME, _inputs("INT8", INT8)[:1])),
    "unknown output": (
        "400",
        "no output 'z_out'",
        lambda c: c.infer(NAME, _inputs("INT8", INT8), outputs=[_output("z")]),
    ),
    "output twice": (
        "400",
        "asked for twice",
        lambda c: c.infer(NAME, _inputs("INT8", INT8), outputs=[_output("INT8")] * 2),
    ),
    "wrong rank": ("400", "does not fit", lambda c: c.infer(NAME, _shaped([6]))),
    "wrong size": ("400", "do not fill the shape", lambda c: c.infer(NAME, _shaped([2, 4]))),
    "a negative dimension": ("400", "whole numbers", lambda c: c.infer(NAME, _shaped([-2, -3]))),
    "huge shape": ("400", "too large", lambda c: c.infer(NAME, _shaped([2**40, 2**40]))),
    "classification": (
        "400",
        "classification",
        lambda c: c.infer(
            NAME,
            _inputs("INT8", INT8),
            outputs=[triton.InferRequestedOutput("int8_out", binary_data=True, class_count=2)],
        ),
    ),
    "no region": ("400", "Unable to find", lambda c: c.get_system_shared_memory_status("none")),
    "load": ("404", "not found", lambda c: c.load_model(NAME)),
    "too large": (
        "413",
        "more than",
        lambda c: c.infer(NAME, _inputs("INT8", np.zeros((1, LIMITS.request_body_bytes), np.int8))),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(served: ServedModel, mistake: str) -> None:
    status, text, ask = MISTAKES[mistake]
    with triton.InferenceServerClient(served.address) as client:
        with pytest.raises(triton.InferenceServerException, match=text) as caught:
            ask(client)
        assert caught.value.status() == status
        assert client.is_server_live()


# errors that it cannot ----


def _item(**changes: object) -> dict[str, object]:
    return {"name": "int8", "datatype": "INT8", "shape": [1, 1], "data": [1], **changes}


EMPTY_ITEMS = [
    {"name": name.lower(), "datatype": name, "shape": [0, 0], "parameters": {"binary_data_size": 0}}
    for name in ELEMENTS
    if name != "INT8"
]


def _body(item: dict[str, object] | None = None, **changes: object) -> bytes:
    return json.dumps({"inputs": [item or _item(), *EMPTY_ITEMS], **changes}).encode()


def _binary(size: object) -> dict[str, object]:
    return {"name": "int8", "datatype": "INT8", "shape": [1, 1], "parameters": {"binary_data_size": size}}


RAW: dict[str, tuple[str, dict[str, str], bytes, str]] = {
    "no JSON": ("400", {}, b"{", "not JSON"),
    "no text": ("400", {}, b"\xff\xfe", "not JSON"),
    "no object": ("400", {}, b"[]", "not a JSON object"),
    "a header length beyond": ("400", {"Inference-Header-Content-Length": "9999"}, _body(), "the body has"),
    "a header length below": ("400", {"Inference-Header-Content-Length": "5"}, _body(), "not JSON"),
    "a header length that is none": ("400", {"Inference-Header-Content-Length": "-1"}, _body(), "Length is '-1'"),
    "a coding": ("415", {"Content-Encoding": "gzip"}, _body(), "without a content coding"),
    "a wrong datatype": ("400", {}, _body(_item(datatype="FP32")), "the model takes INT8"),
    "out of range": ("400", {}, _body(_item(data=[128])), "outside the range"),
    "two ways": ("400", {}, _body({**_binary(1), "data": [1]}), "more than one way"),
    "bytes that do not come": ("400", {}, _body(_binary(1)), "1 bytes of binary data are announced, 0 came"),
    "a size that is none": ("400", {}, _body(_binary("1")), "whole number"),
    "a priority that is none": ("400", {}, _body(parameters={"priority": -1}), "'priority'"),
    "a timeout that is none": ("400", {}, _body(parameters={"timeout": "soon"}), "'timeout'"),
    "parameters that are none": ("400", {}, _body(parameters=[1]), "'parameters'"),
    "an id that is none": ("400", {}, _body(id=5), "'id'"),
}


@pytest.mark.parametrize("what", RAW)
def test_request_that_no_client_makes(served: ServedModel, what: str) -> None:
    status, headers, body, text = RAW[what]
    answer, error = _post(served, NAME, body, headers)
    assert str(answer.status) == status
    assert text in error["error"]


def test_bytes_that_belong_to_nobody(served: ServedModel) -> None:
    head = _body()
    answer, error = _post(served, NAME, head + b"123", {"Inference-Header-Content-Length": str(len(head))})
    assert answer.status == 400 and "belong to no input" in error["error"]


def _post(
    served: ServedModel, model: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, dict[str, Any]]:
    connection = http.client.HTTPConnection(served.address, timeout=60)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", body, headers or {})
        answer = connection.getresponse()
        return answer, json.loads(answer.read())
    finally:
        connection.close()


def test_a_busy_model_says_so(tmp_path: Path) -> None:
    """504 for one whose time is over, 503 with the time to ask again for one whose time is known not to suffice."""
    bundle = make_model_bundle(tmp_path / "bundle", width=96, repeat=400)

    def body(rows: int, **parameters: int) -> bytes:
        item = {"name": "x", "shape": [rows, 96], "datatype": "FP32", "data": [0.0] * (rows * 96)}
        return json.dumps({"inputs": [item], "parameters": parameters}).encode()

    with ServedModel(bundle.directory, bundle.reference, tmp_path) as served:
        # Some hundred GFLOP: a second and more on anything that these tests run on.
        long = threading.Thread(target=_post, args=(served, "linear", body(3000)))
        long.start()
        served.wait_until_it_computes()
        # Nothing has run so far: nobody knows yet that the time will not suffice.
        answer, error = _post(served, "linear", body(1, timeout=10_000))
        assert answer.status == 504 and "its time was over" in error["error"]
        long.join()
        answer, error = _post(served, "linear", body(1, timeout=1000))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1"), error
        assert "too many requests wait" in error["error"]
        assert _post(served, "linear", body(1))[0].status == 200
