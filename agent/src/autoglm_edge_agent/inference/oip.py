"""The Open Inference Protocol v2 over HTTP: from a request to its answer. No sockets here.

Sources: Open Inference Protocol (KServe), "HTTP/REST"; Triton Inference Server, HTTP forms of its extensions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.messages import BINARY, Request, Response, error, json_response
from autoglm_edge_agent.inference.raw_tensors import encode_raw
from autoglm_edge_agent.inference.service import Output, Service
from autoglm_edge_agent.inference.tensors import NOTHING, encode_output, parameters_of

HEADER_LENGTH = "inference-header-content-length"


class InferenceApi:
    """Answers requests for one model."""

    def __init__(self, service: Service) -> None:
        self._service = service

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
        if rest[:1] == ["systemsharedmemory"]:
            return self._shared_memory(request, rest[1:])
        if rest == ["repository", "index"]:
            _allow(request.method, "POST")
            return json_response(200, self._service.index())
        if rest == ["models", "stats"]:
            _allow(request.method, "GET", "HEAD")
            return json_response(200, self._service.statistics())
        if rest[:1] == ["models"] and len(rest) >= 2:
            return await self._model(request, rest[1], rest[2:])
        return self._server(request, rest)

    def _server(self, request: Request, rest: list[str]) -> Response:
        if rest not in ([], ["health", "live"], ["health", "ready"]):
            raise RequestError(404, "not found")
        _allow(request.method, "GET", "HEAD")
        return json_response(200, {rest[1]: True} if rest else self._service.server())

    async def _model(self, request: Request, name: str, rest: list[str]) -> Response:
        service = self._service
        service.check_name(name)
        if rest[:1] == ["versions"]:
            service.check_version("/".join(rest[1:2]))
            rest = rest[2:]
        if rest == ["infer"]:
            _allow(request.method, "POST")
            return await self._infer(request)
        _allow(request.method, "GET", "HEAD")
        if not rest:
            return json_response(200, {**service.metadata(), "parameters": {"variant": service.variant}})
        if rest == ["ready"]:
            return json_response(200, {"name": service.name, "ready": True})
        if rest == ["stats"]:
            return json_response(200, service.statistics())
        if rest == ["config"]:
            return json_response(200, service.config())
        raise RequestError(404, "not found")

    def _shared_memory(self, request: Request, rest: list[str]) -> Response:
        regions = self._service.regions
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
        header, binary = _split(request)
        asked = _object(header)
        if "id" in asked and not isinstance(asked["id"], str):
            raise RequestError(400, "'id' must be a string")
        response: Response = await self._service.infer(
            asked, request.client, binary, answer=lambda outputs: self._response(asked, outputs)
        )
        return response

    def _response(self, asked: dict[str, Any], outputs: Sequence[Output]) -> Response:
        answer: dict[str, Any] = {"model_name": self._service.name, "model_version": self._service.version}
        if "id" in asked:
            answer["id"] = asked["id"]
        answer["parameters"] = {"variant": self._service.variant}
        answer["outputs"] = described = []
        binary_by_default = parameters_of(asked).get("binary_data_output") is True
        pieces: list[bytes | memoryview] = []
        for output in outputs:
            if "shared_memory_region" in output.parameters:
                described.append(self._service.to_shared_memory(output))
            elif output.parameters.get("binary_data", binary_by_default) is True:
                raw = encode_raw(output.array)
                pieces.append(raw)
                described.append(output.described(binary_data_size=len(raw)))
            else:
                described.append(encode_output(output.spec, output.array))
        response = json_response(200, answer)
        if not pieces or response.status != 200:
            return response
        head = response.pieces[0]
        return Response(200, [head, *pieces], BINARY, {HEADER_LENGTH: str(len(head))})


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
