"""Triton's client over gRPC against a real worker, and messages that it does not make."""

from __future__ import annotations

import importlib.util
import sys
import time
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
from tests.fakes.shared_objects import shared_object

from autoglm_edge_agent.config import InferenceSection
from autoglm_edge_agent.errors import Refusal, StateError
from autoglm_edge_agent.inference.control import AccessOrder, ServingOrder
from autoglm_edge_agent.inference.listeners import endpoints, reserve_grpc
from autoglm_edge_agent.inference.supervisor import Supervisor
from autoglm_edge_protocol.deployment import Installed
from autoglm_edge_protocol.limits import LIMITS

Array = npt.NDArray[Any]
VERSION = "1.0.0"
HERE = importlib.util.find_spec("grpc") is not None
triton = pytest.importorskip("tritonclient.grpc") if HERE else None
extra = pytest.mark.skipif(not HERE, reason="the extra is not installed")


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(StateError, match=r"pip install 'autoglm-edge-agent\[grpc\]'$"):
        reserve_grpc(InferenceSection(grpc="127.0.0.1:0"))


@extra
def test_the_address_is_reserved_for_workers_alone() -> None:
    first = reserve_grpc(InferenceSection(grpc="127.0.0.1:0"))
    assert first is not None
    (endpoint,) = endpoints([], first)
    assert endpoint == f"grpc://127.0.0.1:{first.getsockname()[1]}"
    assert reserve_grpc(InferenceSection()) is None
    first.close()


@pytest.mark.parametrize("address", ["0.0.0.0:8001", "nowhere", "127.0.0.1:70000"])
def test_an_address_that_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        InferenceSection(grpc=address)


@extra
async def test_an_address_that_workers_cannot_have_is_told(tmp_path: Path) -> None:
    bundle = make_model_bundle(tmp_path / "bundle", width=4)
    serving = ServingOrder(grpc="203.0.113.1:1")  # of nobody: an address for documents
    supervisor = Supervisor(lambda _: bundle.directory, [], 1, 30.0, 30.0, lambda *_: None, lambda: None, serving)
    await supervisor.switch(Installed(bundle=bundle.reference, variant="fp32"))
    with pytest.raises(Refusal, match=r"grpc cannot be served on 203\.0\.113\.1:1"):
        await supervisor.restart()
    await supervisor.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    directory = tmp_path_factory.mktemp("served")
    reference = make_identity_bundle(directory / "bundle")
    with ServedModel(directory / "bundle", reference, directory, grpc=True) as served:
        yield served


@pytest.fixture(scope="module")
def client(served: ServedModel) -> Iterator[Any]:
    assert triton is not None
    client = triton.InferenceServerClient(served.grpc_address)
    yield client
    client.close()


@pytest.fixture(scope="module")
def ask(served: ServedModel) -> Iterator[Callable[[Any], Any]]:
    """Make a ModelInfer call with a message of our own making."""
    import grpc
    from tritonclient.grpc import service_pb2_grpc

    with grpc.insecure_channel(served.grpc_address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer


def _input(datatype: str, array: Array) -> Any:
    assert triton is not None
    item = triton.InferInput(datatype.lower(), list(array.shape), datatype)
    item.set_data_from_numpy(array)
    return item


def _inputs(datatype: str, array: Array) -> list[Any]:
    empty = {name: np.empty((0, 0), edges(name).dtype) for name in ELEMENTS if name != datatype}
    return [_input(datatype, array), *(_input(name, each) for name, each in empty.items())]


def _output(datatype: str) -> Any:
    assert triton is not None
    return triton.InferRequestedOutput(f"{datatype.lower()}_out")


def _error() -> Any:
    assert triton is not None
    return triton.InferenceServerException


ENDPOINTS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "server live": (lambda c: c.is_server_live(), True),
    "server ready": (lambda c: c.is_server_ready(), True),
    "server metadata": (lambda c: c.get_server_metadata().name, "autoglm-edge-agent"),
    "extensions": (lambda c: "system_shared_memory" in c.get_server_metadata().extensions, True),
    "model ready": (lambda c: c.is_model_ready(NAME), True),
    "model ready, version": (lambda c: c.is_model_ready(NAME, VERSION), True),
    "model metadata": (lambda c: list(c.get_model_metadata(NAME).versions), [VERSION]),
    "model metadata, version": (
        lambda c: [(each.datatype, list(each.shape)) for each in c.get_model_metadata(NAME, VERSION).inputs],
        [(name, [-1, -1]) for name in ELEMENTS],
    ),
    "model config": (
        lambda c: {each["data_type"] for each in c.get_model_config(NAME, as_json=True)["config"]["output"]},
        {f"TYPE_{'STRING' if name == 'BYTES' else name}" for name in ELEMENTS},
    ),
    "model config, backend": (lambda c: c.get_model_config(NAME, VERSION).config.backend, "onnxruntime"),
    "statistics": (lambda c: c.get_inference_statistics().model_stats[0].name, NAME),
    "statistics, version": (lambda c: c.get_inference_statistics(NAME, VERSION).model_stats[0].version, VERSION),
    "repository": (
        lambda c: c.get_model_repository_index(as_json=True)["models"],
        [{"name": NAME, "version": VERSION, "state": "READY"}],
    ),
    "shared memory": (lambda c: len(c.get_system_shared_memory_status().regions), 0),
}


@extra
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_endpoint(client: Any, endpoint: str) -> None:
    question, expected = ENDPOINTS[endpoint]
    assert question(client) == expected


@extra
@pytest.mark.parametrize("datatype", ELEMENTS)
def test_datatype_as_raw_contents(client: Any, datatype: str) -> None:
    array = edges(datatype)
    result = client.infer(
        NAME, _inputs(datatype, array), outputs=[_output(datatype)], request_id="7", priority=1, timeout=60_000_000
    )
    found = result.as_numpy(f"{datatype.lower()}_out")
    assert result.get_response().id == "7"
    if datatype == "BYTES":
        found = np.array([value.decode() for value in found.ravel()], dtype=object).reshape(found.shape)
    np.testing.assert_array_equal(found, array)


CONTENTS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
}


def _typed(datatype: str, values: list[Any]) -> Any:
    """A request whose tensors come as typed contents, one of them with values."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=NAME)
    for name in ELEMENTS:
        shape = [1, len(values)] if name == datatype else [0, 0]
        tensor = request.inputs.add(name=name.lower(), datatype=name, shape=shape)
        if name == "FP16":  # which has no typed contents
            tensor.parameters["shared_memory_region"].string_param = "nothing"
            tensor.parameters["shared_memory_byte_size"].int64_param = 0
        elif name == datatype and values:
            getattr(tensor.contents, CONTENTS[name]).extend(values)
    return request


@pytest.fixture
def nothing(client: Any) -> Iterator[None]:
    """A region of which no byte is read."""
    with shared_object(64) as made:
        client.register_system_shared_memory("nothing", made.key, 64)
        yield
        client.unregister_system_shared_memory("nothing")


@extra
@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("datatype", CONTENTS)
def test_datatype_as_typed_contents(ask: Callable[[Any], Any], datatype: str) -> None:
    array = edges(datatype).ravel()
    values = [value.encode() for value in array] if datatype == "BYTES" else array.tolist()
    answer = ask(_typed(datatype, values))
    raw = answer.raw_output_contents[list(ELEMENTS).index(datatype)]
    if datatype == "BYTES":
        assert raw == b"".join(len(value).to_bytes(4, "little") + value for value in values)
    else:
        np.testing.assert_array_equal(np.frombuffer(raw, array.dtype), array)


@extra
def test_infer_through_shared_memory(client: Any) -> None:
    array = edges("INT32")
    with shared_object(4096) as region:
        region.write(array)
        client.register_system_shared_memory("region", region.key, 4096)
        assert client.get_system_shared_memory_status("region").regions["region"].byte_size == 4096
        items = {item.name(): item for item in _inputs("INT32", array)}
        items["int32"].set_shared_memory("region", array.nbytes)
        wanted, other = _output("INT32"), _output("FP32")
        wanted.set_shared_memory("region", array.nbytes, offset=2048)
        result = client.infer(NAME, list(items.values()), outputs=[wanted, other])
        assert result.as_numpy("fp32_out").shape == (0, 0)
        np.testing.assert_array_equal(region.read(array, 2048), array)
        client.unregister_system_shared_memory()
        with pytest.raises(_error(), match="Unable to find"):
            client.get_system_shared_memory_status("region")


INT8 = edges("INT8")

MISTAKES: dict[str, tuple[str, str, Callable[[Any], object]]] = {
    "unknown model": ("NOT_FOUND", "unknown model", lambda c: c.infer("other", _inputs("INT8", INT8))),
    "unknown model's readiness": ("NOT_FOUND", "unknown model", lambda c: c.is_model_ready("other")),
    "unknown version": ("NOT_FOUND", "not served", lambda c: c.infer(NAME, _inputs("INT8", INT8), model_version="9")),
    "missing input": ("INVALID_ARGUMENT", "is missing", lambda c: c.infer(NAME, _inputs("INT8", INT8)[:1])),
    "unknown output": (
        "INVALID_ARGUMENT",
        "no output",
        lambda c: c.infer(NAME, _inputs("INT8", INT8), outputs=[_output("z")]),
    ),
    "no region": ("INVALID_ARGUMENT", "Unable to find", lambda c: c.get_system_shared_memory_status("none")),
    "no object": ("INVALID_ARGUMENT", "Unable to open", lambda c: c.register_system_shared_memory("a", "/none-x", 64)),
    "too large": (
        "RESOURCE_EXHAUSTED",
        "larger than max",
        lambda c: c.infer(NAME, _inputs("INT8", np.zeros((1, LIMITS.request_body_bytes + 2**21), np.int8))),
    ),
    "not offered": ("UNIMPLEMENTED", "", lambda c: c.load_model(NAME)),
}


@extra
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(client: Any, mistake: str) -> None:
    status, text, question = MISTAKES[mistake]
    with pytest.raises(_error(), match=text or None) as caught:
        question(client)
    assert caught.value.status() == f"StatusCode.{status}"
    assert client.is_server_live()


def _wrong_datatype(request: Any) -> None:
    request.inputs[0].datatype = "FP64"


def _no_shape(request: Any) -> None:
    del request.inputs[0].shape[:]


def _both(request: Any) -> None:
    request.inputs[0].contents.fp32_contents.append(1)
    request.raw_input_contents.extend([b""] * len(ELEMENTS))


def _raw_too_few(request: Any) -> None:
    request.raw_input_contents.append(b"")


def _raw_too_many(request: Any) -> None:
    request.raw_input_contents.extend([b""] * 20)


def _bad_priority(request: Any) -> None:
    request.parameters["priority"].string_param = "high"


def _out_of_range(request: Any) -> None:
    (tensor,) = (each for each in request.inputs if each.name == "int8")
    tensor.shape[:] = [1, 1]
    tensor.contents.int_contents.append(128)


STRANGE: dict[str, tuple[Callable[[Any], None], str]] = {
    "wrong datatype": (_wrong_datatype, "the model takes FP32"),
    "no shape": (_no_shape, "does not fit"),
    "data in two ways": (_both, "more than one way"),
    "too few raw contents": (_raw_too_few, "are missing"),
    "too many raw contents": (_raw_too_many, "belong to no input"),
    "a priority that is none": (_bad_priority, "'priority'"),
    "out of range": (_out_of_range, "outside the range"),
}


@extra
@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("what", STRANGE)
def test_message_that_no_client_makes(ask: Callable[[Any], Any], what: str) -> None:
    import grpc

    change, text = STRANGE[what]
    request = _typed("FP32", [])
    request.inputs[0].shape[:] = [0, 0]
    change(request)
    with pytest.raises(grpc.RpcError, match=text) as caught:
        ask(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@extra
def test_bytes_that_are_no_message(served: ServedModel) -> None:
    import grpc

    with grpc.insecure_channel(served.grpc_address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError):
            call(b"\xff" * 100)
        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert live(b"") == b"\x08\x01"


def _retry_after(served: ServedModel) -> str | None:
    """What the metadata of the answer to a request with too little time says."""
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name="linear", raw_input_contents=[bytes(4 * 96)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 96])
    request.parameters["timeout"].int64_param = 1
    with grpc.insecure_channel(served.grpc_address) as channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    return dict(caught.value.trailing_metadata()).get("retry-after")


def _in_the_end(question: Callable[[], Any]) -> Any:
    """A request that comes while its server ends may be cancelled by gRPC itself, and is asked again."""
    for _ in range(100):
        try:
            return question()
        except _error() as error:
            assert error.status() in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED")
    raise AssertionError("the new server does not answer")


@extra
def test_a_busy_model_says_so(tmp_path: Path) -> None:
    assert triton is not None
    bundle = make_model_bundle(tmp_path / "bundle", width=96, repeat=400)
    with ServedModel(bundle.directory, bundle.reference, tmp_path, grpc=True) as served:
        first, second = (triton.InferenceServerClient(served.grpc_address) for _ in range(2))

        def rows(count: int) -> list[Any]:
            item = triton.InferInput("x", [count, 96], "FP32")
            item.set_data_from_numpy(np.zeros((count, 96), np.float32))
            return [item]

        done: list[Any] = []
        first.async_infer("linear", rows(3000), lambda result, error: done.append(error or result))
        served.wait_until_it_computes()
        # Nothing has run so far: nobody knows yet that the time will not suffice.
        with pytest.raises(_error(), match="its time was over") as caught:
            second.infer("linear", rows(1), timeout=10_000)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        while not done:
            time.sleep(0.01)
        assert done[0].as_numpy("y").shape == (3000, 96)
        with pytest.raises(_error(), match="too many requests wait") as caught:
            second.infer("linear", rows(1), timeout=1000)
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        assert _retry_after(served) == "1"
        served.restart()
        assert _in_the_end(lambda: second.infer("linear", rows(1))).as_numpy("y").shape == (1, 96)
        for each in (first, second):
            each.close()


@extra
def test_a_token_is_asked_for(tmp_path: Path) -> None:
    assert triton is not None
    (tmp_path / "token").write_text("0123456789abcdef\n")
    reference = make_identity_bundle(tmp_path / "bundle")
    serving = ServingOrder(access=AccessOrder(token_file=tmp_path / "token"))
    with (
        ServedModel(tmp_path / "bundle", reference, tmp_path, serving, grpc=True) as served,
        triton.InferenceServerClient(served.grpc_address) as client,
    ):
        for headers in ({}, {"authorization": "Bearer 0123456789abcdeX"}, {"authorization": "Basic x"}):
            with pytest.raises(_error(), match="token") as caught:
                client.is_server_ready(headers=headers)
            assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
        assert client.is_server_ready(headers={"authorization": "Bearer 0123456789abcdef"})
