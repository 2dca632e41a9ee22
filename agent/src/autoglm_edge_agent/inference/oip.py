"""The endpoints of the Open Inference Protocol v2: from a request to its answer. No sockets here.

Sources: Open Inference Protocol (KServe), "HTTP/REST"; Triton Inference Server, the extensions binary data, statistics,
system shared memory, model configuration and model repository.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote

import numpy.typing as npt

from autoglm_edge_agent import __version__
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.messages import BINARY, Request, Response, error, json_response
from autoglm_edge_agent.inference.raw_tensors import encode_raw
from autoglm_edge_agent.inference.shared_memory import SharedRegions
from autoglm_edge_agent.inference.statistics import Statistics
from autoglm_edge_agent.inference.tensors import (
    NOTHING,
    decode_inputs,
    encode_output,
    parameters_of,
    wanted_outputs,
)
from autoglm_edge_agent.inference.terms import Terms, read_terms
from autoglm_edge_protocol.manifest import Manifest, TensorSpec, Variant

Array = npt.NDArray[Any]
Run = Callable[[Sequence[Array], Terms], Awaitable[list[Array]]]

PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "litert": "tensorflow_lite", "tflite": "tensorflow_lite"}
EXTENSIONS = ("binary_tensor_data", "statistics", "system_shared_memory", "model_configuration", "model_repository")
HEADER_LENGTH = "inference-header-content-length"


class InferenceApi:
    """Answers requests for one model.

    Args:
        run: runs the model; awaited with arrays in the order of the variant's inputs. Raises RequestError.
        statistics: what `run` and this have counted.
        regions: None where shared memory is not offered.
    """

    def __init__(
        self,
        manifest: Manifest,
        variant: Variant,
        run: Run,
        statistics: Statistics | None = None,
        regions: SharedRegions | None = None,
    ) -> None:
        self._manifest = manifest
        self._variant = variant
        self._run = run
        self._statistics = statistics or Statistics()
        self._regions = regions

    async def answer(self, request: Request) -> Response:
        """Answer one request; errors become a JSON object with the key `error`."""
        try:
            parts = [unquote(part) for part in request.target.partition("?")[0].strip("/").split("/")]
            return await self._route(request, parts)
        except RequestError as problem:
            later = problem.retry_after_s
            return error(
                problem.status, str(problem), None if later is None else {"retry-after": str(max(1, math.ceil(later)))}
            )

    async def _route(self, request: Request, parts: list[str]) -> Response:
        if parts[0] != "v2":
            raise RequestError(404, "not found; the Open Inference Protocol begins with /v2")
        rest = parts[1:]
        if rest[:1] == ["systemsharedmemory"] and self._regions is not None:
            return self._shared_memory(request, rest[1:], self._regions)
        if rest == ["repository", "index"]:
            _allow(request.method, "POST")
            return json_response(200, [{"name": self._manifest.name, "version": self._version, "state": "READY"}])
        if rest == ["models", "stats"]:
            _allow(request.method, "GET", "HEAD")
            return self._stats()
        if rest[:1] == ["models"] and len(rest) >= 2:
            return await self._model(request, rest[1], rest[2:])
        return self._server(request, rest)

    def _server(self, request: Request, rest: list[str]) -> Response:
        if rest not in ([], ["health", "live"], ["health", "ready"]):
            raise RequestError(404, "not found")
        _allow(request.method, "GET", "HEAD")
        if not rest:
            extensions = [name for name in EXTENSIONS if self._regions is not None or name != "system_shared_memory"]
            return json_response(200, {"name": "autoglm-edge-agent", "version": __version__, "extensions": extensions})
        return json_response(200, {rest[1]: True})

    async def _model(self, request: Request, name: str, rest: list[str]) -> Response:
        if name != self._manifest.name:
            raise RequestError(404, f"unknown model {name!r}; this device serves {self._manifest.name!r}")
        if rest[:1] == ["versions"]:
            if rest[1:2] != [self._version]:
                raise RequestError(404, f"version {'/'.join(rest[1:2])!r} is not served, {self._version} is")
            rest = rest[2:]
        if rest == ["infer"]:
            _allow(request.method, "POST")
            return await self._infer(request)
        _allow(request.method, "GET", "HEAD")
        if not rest:
            return json_response(200, self._metadata())
        if rest == ["ready"]:
            return json_response(200, {"name": self._manifest.name, "ready": True})
        if rest == ["stats"]:
            return self._stats()
        if rest == ["config"]:
            return json_response(200, self._config())
        raise RequestError(404, "not found")

    @property
    def _version(self) -> str:
        return self._manifest.version

    @property
    def _platform(self) -> str:
        return PLATFORMS.get(self._variant.needs.runtime, self._variant.needs.runtime)

    def _metadata(self) -> dict[str, Any]:
        return {
            "name": self._manifest.name,
            "versions": [self._version],
            "platform": self._platform,
            "inputs": [_tensor(spec) for spec in self._variant.inputs],
            "outputs": [_tensor(spec) for spec in self._variant.outputs],
            "parameters": {"variant": self._variant.id},
        }

    def _config(self) -> dict[str, Any]:
        def described(spec: TensorSpec) -> dict[str, Any]:
            kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
            return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(spec.shape)}

        return {
            "name": self._manifest.name,
            "platform": self._platform,
            "backend": self._variant.needs.runtime,
            "max_batch_size": 0,
            "input": [described(spec) for spec in self._variant.inputs],
            "output": [described(spec) for spec in self._variant.outputs],
        }

    def _stats(self) -> Response:
        return json_response(200, {"model_stats": [self._statistics.to_json(self._manifest.name, self._version)]})

    def _shared_memory(self, request: Request, rest: list[str], regions: SharedRegions) -> Response:
        name = None
        if rest[:1] == ["region"] and len(rest) == 3:
            name, rest = rest[1], rest[2:]
        if rest == ["status"]:
            _allow(request.method, "GET", "HEAD")
            return json_response(200, regions.status(name))
        if rest == ["register"] and name is not None:
            _allow(request.method, "POST")
            regions.register(name, _object(bytes(request.body)))
        elif rest == ["unregister"]:
            _allow(request.method, "POST")
            regions.unregister(name)
        else:
            raise RequestError(404, "not found")
        return json_response(200, {})

    async def _infer(self, request: Request) -> Response:
        began = time.perf_counter()
        header, binary = _split(request)
        asked = _object(header)
        if "id" in asked and not isinstance(asked["id"], str):
            raise RequestError(400, "'id' must be a string")
        terms = read_terms(request.client, parameters_of(asked))
        inputs = decode_inputs(asked, self._variant.inputs, binary, self._regions)
        wanted = wanted_outputs(asked, self._variant.outputs)
        decoded = time.perf_counter()
        outputs = await self._run(inputs, terms)
        ran = time.perf_counter()
        response = self._response(asked, wanted, outputs)
        self._statistics.translated(decoded - began, time.perf_counter() - ran)
        return response

    def _response(self, asked: dict[str, Any], wanted: Sequence[int], outputs: Sequence[Array]) -> Response:
        answer: dict[str, Any] = {"model_name": self._manifest.name, "model_version": self._version}
        if "id" in asked:
            answer["id"] = asked["id"]
        answer["parameters"] = {"variant": self._variant.id}
        answer["outputs"] = described = []
        by_name = {item["name"]: item for item in asked.get("outputs") or []}
        binary_by_default = parameters_of(asked).get("binary_data_output") is True
        pieces: list[bytes | memoryview] = []
        for position in wanted:
            spec, array = self._variant.outputs[position], outputs[position]
            parameters = parameters_of(by_name.get(spec.name, {}))
            if "classification" in parameters:
                raise RequestError(400, "the classification extension is not offered here: ask for the tensor")
            if "shared_memory_region" in parameters:
                described.append(self._to_shared_memory(spec, array, parameters))
            elif parameters.get("binary_data", binary_by_default) is True:
                raw = encode_raw(array)
                pieces.append(raw)
                described.append(_placed(spec, array, {"binary_data_size": len(raw)}))
            else:
                described.append(encode_output(spec, array))
        response = json_response(200, answer)
        if not pieces or response.status != 200:
            return response
        head = response.pieces[0]
        return Response(200, [head, *pieces], BINARY, {HEADER_LENGTH: str(len(head))})

    def _to_shared_memory(self, spec: TensorSpec, array: Array, parameters: dict[str, Any]) -> dict[str, Any]:
        region, size = parameters["shared_memory_region"], parameters.get("shared_memory_byte_size")
        offset = parameters.get("shared_memory_offset", 0)
        if self._regions is None:
            raise RequestError(400, "shared memory is not offered here")
        if type(size) is not int or type(offset) is not int:
            raise RequestError(400, f"output {spec.name!r}: 'shared_memory_byte_size' must be a whole number of bytes")
        raw = encode_raw(array)
        self._regions.write(str(region), offset, size, raw)
        place = {"shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": len(raw)}
        return _placed(spec, array, place)


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _placed(spec: TensorSpec, array: Array, where: dict[str, Any]) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape), "parameters": where}


def _split(request: Request) -> tuple[bytes, memoryview]:
    """Return the JSON and what follows it. Raises RequestError (400)."""
    length = request.headers.get(HEADER_LENGTH)
    body = memoryview(request.body)
    if length is None:
        return bytes(body), NOTHING
    if not (length.isascii() and length.isdigit()) or len(length) > 12 or int(length) > len(body):
        raise RequestError(400, f"Inference-Header-Content-Length is {length!r}, the body has {len(body)} bytes")
    return bytes(body[: int(length)]), body[int(length) :]


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise RequestError(400, f"the body is not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise RequestError(400, "the body is not a JSON object")
    return value


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise RequestError(405, f"{method} is not allowed here, {allowed[0]} is")
