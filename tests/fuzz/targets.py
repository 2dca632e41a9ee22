"""Every parser of bytes that come from outside, as a function that raises nothing but what it says.

The same functions are tried by hypothesis in the normal run (test_targets.py) and by atheris as long as one likes
(`make fuzz`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tests.fakes.fast_path_channels import HostedChannel, memory_of
from tests.fakes.onnx_writer import linear_model
from tests.fakes.tflite_writer import flatbuffer
from tests.fuzz import enrolment_targets as enrolment
from tests.fuzz import trust_targets as trust
from tests.protocol.example_documents import EXAMPLES, MANIFEST, VARIANT

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.client.wire import REQUEST, REQUEST_KIND
from autoglm_edge_agent.config_file import load_config
from autoglm_edge_agent.errors import ConfigurationError, StateError
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.http import HttpServer
from autoglm_edge_agent.inference.messages import Request, Response
from autoglm_edge_agent.inference.oip import InferenceApi
from autoglm_edge_agent.inference.proto import PROTO, read_proto
from autoglm_edge_agent.inference.raw_tensors import decode_raw, encode_raw
from autoglm_edge_agent.inference.service import Service
from autoglm_edge_agent.inference.shared_memory import SharedRegions
from autoglm_edge_agent.inference.terms import Terms
from autoglm_edge_agent.storage.ledger import Ledger
from autoglm_edge_agent.storage.slots import salvage
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.telemetry.temperature import temperature_c
from autoglm_edge_agent.trust.decision import Distrust
from autoglm_edge_agent.trust.memory import Memory
from autoglm_edge_agent.trust.offline import REQUEST_NAME
from autoglm_edge_agent.trust.wire import FromVerifier, Question
from autoglm_edge_agent.updates.record import UpdateRecord, read_record
from autoglm_edge_fleet.errors import FleetError
from autoglm_edge_protocol import bundle, golden
from autoglm_edge_protocol.address import BrokerAddress
from autoglm_edge_protocol.documents import Document, parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import ProtocolError, UnsupportedSchema
from autoglm_edge_protocol.golden import GoldenSample
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import TensorSpec
from autoglm_edge_protocol.names import BundleId, check_relative_path
from autoglm_edge_protocol.tensor_starts import tensor_starts
from autoglm_edge_protocol.topics import parse_topic


@dataclass(frozen=True)
class Target:
    """A parser, and valid inputs to begin with."""

    name: str
    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    raises: tuple[type[Exception], ...] = ()
    """What it says that it raises beside the errors that a user reads."""


def _documents(model: type[Document]) -> Callable[[bytes], object]:
    return lambda data: parse(model, data, LIMITS.chunk_index_bytes)


def _in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / name
            path.write_bytes(data)
            return read(path)

    return run


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "replace"))


async def _model(inputs: Sequence[Any], _terms: Terms) -> list[Any]:
    return [np.zeros((len(inputs[0]), 10), np.float32)]


def _infer(body: bytes) -> object:
    response = asyncio.run(
        InferenceApi(Service(MANIFEST, VARIANT, _model)).answer(Request("POST", "/v2/models/magika/infer", body=body))
    )
    assert response.status in (200, 400), response
    return response


def _raw_tensor(data: bytes) -> object:
    """The first byte says the datatype, the next two the shape."""
    if len(data) < 3:
        return None
    spec = TensorSpec(name="x", datatype=(*DATATYPES, "BYTES")[data[0] % 13], shape=(-1, -1))
    shape = [data[1] % 8, data[2] % 8]
    try:
        found = decode_raw(memoryview(data)[3:], spec, shape)
    except RequestError as error:
        assert error.status == 400
        return None
    assert list(found.shape) == shape
    if spec.datatype != "BOOL":  # of which many bytes are true
        assert bytes(encode_raw(found)) == data[3:]
    return found


def _region(folder: Path) -> Callable[[bytes], object]:
    folder.joinpath("object").write_bytes(bytes(64))

    def run(data: bytes) -> object:
        regions = SharedRegions(folder)
        body = b"/v2/systemsharedmemory/region/r/register"
        request = Request("POST", body.decode(), body=data)
        response = asyncio.run(InferenceApi(Service(MANIFEST, VARIANT, _model, regions=regions)).answer(request))
        assert response.status == 200 or (response.status == 400 and regions.status(None) == [])
        regions.close()
        return response

    return run


def _fast_path(data: bytes) -> object:
    """One message with the descriptor of 8 KiB, and a request."""
    with HostedChannel(MANIFEST, VARIANT) as hosted:
        memory = memory_of(8192 + 64)
        try:
            if data and hosted.send(data[:60_000], [memory]):
                answer = hosted.client.recv(65536)
                assert answer[:1] in b"AJ"
                hosted.send(REQUEST.pack(REQUEST_KIND, 0, 1, 0, 7, 0))
        finally:
            os.close(memory)
    return None


def _head(data: bytes) -> object:
    return asyncio.run(_served(data))


async def _served(data: bytes) -> bytes:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))

    async def answer(request: Request) -> Response:
        assert not request.method or request.method.isascii()
        return Response(200, b"{}")

    server = HttpServer(answer)
    server.start([listener])
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    found = b""
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        writer.write_eof()
        found = await asyncio.wait_for(reader.read(), 10)
    assert found == b"" or found.startswith(b"HTTP/1.1 "), found
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await asyncio.wait_for(server.drain(), 10)
    listener.close()
    assert not problems, problems
    return found


class _Call:
    """What an endpoint may ask of a call: a client with much time."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> None:
        return None


def _grpc(data: bytes) -> object:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from autoglm_edge_agent.inference.grpc_endpoints import Endpoints

    endpoints = Endpoints(Service(MANIFEST, VARIANT, _model), _DEFINITIONS.messages)
    try:
        asked = _DEFINITIONS.messages["ModelInferRequest"].FromString(data)
        return asyncio.run(endpoints.ModelInfer(asked, _Call()))
    except DecodeError:
        return None
    except RequestError as error:
        assert error.status in (400, 404) and "\n" not in str(error)
        return None


def _grpc_seeds() -> tuple[bytes, ...]:
    raw, typed = (_DEFINITIONS.messages["ModelInferRequest"](model_name="magika", id="a") for _ in range(2))
    for each in (raw, typed):
        each.parameters["priority"].uint64_param = 1
        each.inputs.add(name="x", datatype="INT32", shape=[1, 2048])
    raw.raw_input_contents.append(bytes(8192))
    typed.inputs[0].contents.int_contents.extend([1] * 2048)
    return raw.SerializeToString(), typed.SerializeToString()


def _zone(path: Path) -> object:
    zone = path.parent / "thermal_zone0"
    zone.mkdir()
    (zone / "type").write_text("cpu")
    path.rename(zone / "temp")
    return temperature_c(path.parent)


def _unpack(path: Path) -> object:
    bundle.unpack(path, path.parent / "unpacked")
    return bundle.verify(path.parent / "unpacked")


def _starts(path: Path) -> object:
    found = tensor_starts(path.parent, [path.name])
    assert all(start >= 0 for starts in found.values() for start in starts)
    return found


def _seeds(model: type[Document]) -> tuple[bytes, ...]:
    return tuple(each.to_bytes() for each in EXAMPLES if type(each) is model)


_CONFIG = b'[device]\nfleet = "f"\nname = "d"\n[broker]\nurl = "mqtt://h"\n[probation.default.shadow]\nrate = 0.5\n'
_REQUEST = b'{"inputs":[{"name":"x","shape":[1,2048],"datatype":"INT32","data":[' + b"1," * 2047 + b"1]}]}"
_DEFINITIONS = read_proto(PROTO)
_RAW = bytes([10, 1, 2]) + bytes(8)
_TEXTS = bytes([12, 1, 2]) + b"\1\0\0\0a\0\0\0\0"
_REGION = b'{"key":"/object","offset":8,"byte_size":32}'
_PLACES = {"inputs": [{"offset": 0, "shape": [1, 2048]}], "outputs": {"offset": 8192, "bytes": 64}}
_LAYOUT = b"J" + json.dumps({"op": "layout", "layout": 1, "bytes": 8256, **_PLACES}).encode()
_HEAD = (
    b"POST /v2/models/a/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"
)
_CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
)
_FOLDER = tempfile.TemporaryDirectory(prefix="autoglm-edge-regions-")
_GOLDEN = golden.save([GoldenSample((np.zeros((1, 3), np.float32),), (np.zeros((1, 2), np.float32),))])
_ONNX = linear_model(np.zeros((4, 3), np.float32), np.zeros(3, np.float32))
_TFLITE = flatbuffer([b"abcdefgh", None], [b"behind"])
ALLOWED = (ProtocolError, ConfigurationError, FleetError, Distrust)

_FILES = {name: trust.repository().files[name] for name in trust.repository().catalogue()}
_SNAPSHOT = next(data for name, data in _FILES.items() if name.endswith(".snapshot.json"))

_MODELS: tuple[type[Document], ...] = tuple(dict.fromkeys(type(each) for each in EXAMPLES))
"""In a fixed order: tests are named after them in every process."""

_CSR = enrolment.scene().device.request.csr.encode()
_CERTIFICATE = enrolment.scene().desk.fleet.enrolment.authority.pem().encode()
_KEY = (enrolment.scene().device.folder / "device.key").read_bytes()

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *(Target(model.kind, _documents(model), _seeds(model)) for model in _MODELS),
        Target("topic", _text(parse_topic), (b"autoglm/v1/home/pi/block/" + b"0" * 64 + b"/65536",)),
        Target("broker address", _text(BrokerAddress.parse), (b"mqtts://user:secret@[::1]:8883",)),
        Target("bundle id", _text(BundleId.parse), (b"magika@1.0.0+3",)),
        Target("golden set", _in_file("golden.npz", golden.load), (_GOLDEN,)),
        Target("packed bundle", _in_file("a.bundle", _unpack), (b"manifest.json" + bytes(1011),)),
        Target("tensors of an ONNX model", _in_file("model.onnx", _starts), (_ONNX,)),
        Target("tensors of a TFLite model", _in_file("model.tflite", _starts), (_TFLITE,)),
        Target("inference request", _infer, (_REQUEST,)),
        Target("raw tensor", _raw_tensor, (_RAW, _TEXTS)),
        Target("shared memory", _region(Path(_FOLDER.name)), (_REGION,)),
        Target("message of the fast path", _fast_path, (_LAYOUT, b'J{"op":"hello","version":1}')),
        Target("head of a request", _head, (_HEAD, _CHUNKED)),
        Target("request over gRPC", _grpc, _grpc_seeds()),
        Target("agent configuration", _in_file("agent.toml", load_config), (_CONFIG,)),
        Target("kept record", _in_file("update.json", read_record), (UpdateRecord(generation=1).to_bytes(),)),
        Target("kept slots", _in_file("slots.json", lambda path: Store(path.parent, Disk()).read_slots()), (b"{}",)),
        Target("slots of a newer release", salvage, (b'{"schema_version":9,"current":{"bundle":{"name":"a"}}}',)),
        Target("kept answers", _in_file("answers.json", lambda path: Ledger(path, Disk())), (b'{"entries":[]}',)),
        Target("thermal zone", _in_file("temp", _zone), (b"48312\n",)),
        Target("request to the registrar", enrolment.request, (enrolment.scene().device.asks(),)),
        Target("request of a claim's holder", enrolment.proven_request, (_CSR,)),
        Target("signing request", enrolment.signing_request, (_CSR,)),
        Target("request for renewal", enrolment.renewal, (enrolment.renewal_request(),)),
        Target("answer to a board", enrolment.answer, (enrolment.scene().answer,)),
        Target("certificate to the key process", enrolment.certificate, (_CERTIFICATE,)),
        Target("device's key", _in_file("device.key", enrolment.key), (_KEY,)),
        Target("identity", _in_file("identity.json", enrolment.identity), (enrolment.IDENTITY,), (StateError,)),
        Target("broker settings", _in_file("broker.json", enrolment.broker_settings), (enrolment.BROKER_SETTINGS,)),
        *(Target(f"metadata {name}", trust.metadata(name), (_FILES[name],)) for name in _FILES),
        Target("kept timestamp", _in_file("kept", trust.kept_metadata("timestamp.json")), (_FILES["timestamp.json"],)),
        Target("kept snapshot", _in_file("kept", trust.kept_metadata("snapshot.json")), (_SNAPSHOT,)),
        Target("trust memory", _in_file("memory.json", trust.vault), (Memory(generation=3).to_bytes(),)),
        Target("request for an update from a folder", _in_file(REQUEST_NAME, trust.offline), trust.REQUESTS),
        Target("result of an update from a folder", trust.result, (trust.RESULT,)),
        Target("question to the verifier", trust.frames(Question), (trust.framed(trust.question()),), (EOFError,)),
        Target("words of the verifier", trust.frames(FromVerifier), (trust.VERIFIER_WORDS,), (EOFError,)),
        Target("words of a worker", trust.beat, trust.BEATS, (ValueError,)),
        Target("list of keys", _in_file("keys.json", trust.listed_keys), (b'{"keys": {"a1": "file:a.pem"}}',)),
        Target("key file", _in_file("key.pem", trust.key_file), trust.key_files()),
        Target("fleet settings", _in_file("fleet.toml", trust.settings), (trust.fleet_settings(),)),
        Target("root that waits for signatures", _in_file("2.root.json", trust.pending_root), (_FILES["2.root.json"],)),
    )
}


def try_target(target: Target, data: bytes) -> None:
    """Run a parser; raises what it must not raise."""
    try:
        target.run(data)
    except ALLOWED as error:
        assert str(error) and "\n" not in str(error), repr(error)
    except UnsupportedSchema:
        pass
    except target.raises:
        pass


def try_path(data: bytes) -> None:
    """A path of a bundle is refused or stays inside it."""
    text = data.decode("utf-8", "replace")
    try:
        check_relative_path(text)
    except ValueError:
        return
    assert ".." not in text.split("/") and not text.startswith("/")
