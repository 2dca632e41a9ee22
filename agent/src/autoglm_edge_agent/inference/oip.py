"""The Open Inference Protocol v2 over HTTP: from a request to its answer. No sockets here.

Sources: Open Inference Protocol (KServe), "HTTP/REST"; Triton Inference Server, HTTP forms of its extensions.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

import orjson

from autoglm_edge_agent.inference.asking import NOTHING, Asked
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.messages import BINARY, Request, Response, error, json_response
from autoglm_edge_agent.inference.raw_tensors import encode_raw
from autoglm_edge_agent.inference.service import Output, Service
from autoglm_edge_agent.inference.tensors import encode_output

HEADER_LENGTH = "inference-header-content-length"
MOST_KNOWN = 64
"""Requests whose JSON is remembered, as it was understood."""
MOST_KNOWN_BYTES = 4096
"""Of one such JSON."""


@dataclass
class _Known:
    """A request that came before with other numbers behind its JSON, and the JSON of its last answer."""

    asked: Asked
    layout: list[tuple[tuple[int, ...], int]] | None = None
    """The shapes of the outputs and their bytes, which with the request are all that an answer's JSON tells."""
    head: bytes = b""


class InferenceApi:
    """Answers requests for one model."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        base = f"/v2/models/{service.name}"
        self._infer_targets = (f"{base}/infer", f"{base}/versions/{service.version}/infer")

    def at_once(self, request: Request) -> Response | None:
        """Answer a request whose JSON came before, where the model can be asked without a wait; else None."""
        if request.method != "POST" or request.target not in self._infer_targets:
            return None
        try:
            header, binary = _split(request)
            known = self._known.get(header)
            if known is None:
                return None
            response: Response | None = self._service.infer_at_once(
                known.asked, request.client, binary, partial(self._behind, known)
            )
            return response
        except RequestError as problem:
            return _problem(problem)

    async def answer(self, request: Request) -> Response:
        """Answer one request; errors become a JSON object with the key `error`."""
        try:
            parts = [unquote(part) for part in request.target.partition("?")[0].strip("/").split("/")]
            return await self._route(request, parts)
        except RequestError as problem:
            return _problem(problem)

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
        known = self._known.get(header)
        if known is None:
            known = _Known(self._service.understand(_object(header)))
            self._remember(header, known)
        way = self._behind if known.asked.repeatable else self._mixed
        response: Response = await self._service.infer(known.asked, request.client, binary, partial(way, known))
        return response

    def _remember(self, header: bytes, known: _Known) -> None:
        if known.asked.repeatable and len(header) <= MOST_KNOWN_BYTES:
            self._known[header] = known
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)

    def _behind(self, known: _Known, outputs: Sequence[Output]) -> Response:
        """Answer with all outputs behind the JSON."""
        pieces = [encode_raw(output.array) for output in outputs]
        layout = [(output.array.shape, len(raw)) for output, raw in zip(outputs, pieces, strict=True)]
        if layout != known.layout:
            described = [
                output.described(binary_data_size=size) for output, (_, size) in zip(outputs, layout, strict=True)
            ]
            known.head = bytes(json_response(200, self._answered(known.asked, described)).pieces[0])
            known.layout = layout
        return Response(200, [known.head, *pieces], BINARY, {HEADER_LENGTH: str(len(known.head))})

    def _mixed(self, known: _Known, outputs: Sequence[Output]) -> Response:
        """Answer with each output where it was asked for."""
        pieces: list[bytes | memoryview] = []
        described = []
        for output in outputs:
            if "shared_memory_region" in output.wanted.parameters:
                described.append(self._service.to_shared_memory(output))
            elif known.asked.goes_behind(output.wanted):
                raw = encode_raw(output.array)
                pieces.append(raw)
                described.append(output.described(binary_data_size=len(raw)))
            else:
                described.append(encode_output(output.spec, output.array))
        response = json_response(200, self._answered(known.asked, described))
        if not pieces or response.status != 200:
            return response
        head = response.pieces[0]
        return Response(200, [head, *pieces], BINARY, {HEADER_LENGTH: str(len(head))})

    def _answered(self, asked: Asked, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        answer: dict[str, Any] = {"model_name": self._service.name, "model_version": self._service.version}
        if asked.id is not None:
            answer["id"] = asked.id
        return {**answer, "parameters": {"variant": self._service.variant}, "outputs": outputs}


def _problem(problem: RequestError) -> Response:
    later = problem.retry_after_s
    headers = None if later is None else {"retry-after": str(max(1, math.ceil(later)))}
    return error(problem.status, str(problem), headers)


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
        value = orjson.loads(data)
    except ValueError as problem:
        raise RequestError(400, f"the body is not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise RequestError(400, "the body is not a JSON object")
    return value


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise RequestError(405, f"{method} is not allowed here, {allowed[0]} is")
