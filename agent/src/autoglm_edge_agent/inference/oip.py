"""The endpoints of the Open Inference Protocol v2: from method, path and body to status and JSON. No sockets here.

Source: Open Inference Protocol (KServe), "HTTP/REST".
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy.typing as npt

from autoglm_edge_agent import __version__
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.tensors import decode_inputs, encode_output, wanted_outputs
from autoglm_edge_protocol.manifest import Manifest, Variant

Run = Callable[[Sequence[npt.NDArray[Any]]], Awaitable[list[npt.NDArray[Any]]]]

PLATFORMS = {"onnxruntime": "onnx_onnxruntime"}


@dataclass(frozen=True)
class Response:
    """An answer; `body` is JSON."""

    status: int
    body: bytes


class InferenceApi:
    """Answers requests for one model.

    Args:
        run: runs the model; awaited with arrays in the order of the variant's inputs. Raises RequestError.
    """

    def __init__(self, manifest: Manifest, variant: Variant, run: Run) -> None:
        self._manifest = manifest
        self._variant = variant
        self._run = run

    async def answer(self, method: str, target: str, body: bytes) -> Response:
        """Answer one request; errors become a JSON object with the key `error`."""
        try:
            parts = [unquote(part) for part in target.partition("?")[0].strip("/").split("/")]
            return await self._route(method, parts, body)
        except RequestError as error:
            return _json(error.status, {"error": str(error)})

    async def _route(self, method: str, parts: list[str], body: bytes) -> Response:
        if parts[0] != "v2":
            raise RequestError(404, "not found; the Open Inference Protocol begins with /v2")
        rest = parts[1:]
        if rest[:1] == ["models"] and len(rest) >= 2:
            return await self._model(method, rest[1], rest[2:], body)
        _allow(method, "GET", "HEAD")
        if not rest:
            return _json(200, {"name": "autoglm-edge-agent", "version": __version__, "extensions": []})
        if rest == ["health", "live"]:
            return _json(200, {"live": True})
        if rest == ["health", "ready"]:
            return _json(200, {"ready": True})
        raise RequestError(404, "not found")

    async def _model(self, method: str, name: str, rest: list[str], body: bytes) -> Response:
        if name != self._manifest.name:
            raise RequestError(404, f"unknown model {name!r}; this device serves {self._manifest.name!r}")
        if rest[:1] == ["versions"]:
            if rest[1:2] != [self._manifest.version]:
                raise RequestError(404, f"version {'/'.join(rest[1:2])!r} is not served, {self._manifest.version} is")
            rest = rest[2:]
        if rest == ["infer"]:
            _allow(method, "POST")
            return await self._infer(body)
        _allow(method, "GET", "HEAD")
        if not rest:
            return _json(200, self._metadata())
        if rest == ["ready"]:
            return _json(200, {"name": self._manifest.name, "ready": True})
        raise RequestError(404, "not found")

    def _metadata(self) -> dict[str, Any]:
        runtime = self._variant.needs.runtime
        return {
            "name": self._manifest.name,
            "versions": [self._manifest.version],
            "platform": PLATFORMS.get(runtime, runtime),
            "inputs": [_tensor(spec) for spec in self._variant.inputs],
            "outputs": [_tensor(spec) for spec in self._variant.outputs],
            "parameters": {"variant": self._variant.id},
        }

    async def _infer(self, body: bytes) -> Response:
        request = _parse(body)
        inputs = decode_inputs(request, self._variant.inputs)
        wanted = wanted_outputs(request, self._variant.outputs)
        outputs = await self._run(inputs)
        answer: dict[str, Any] = {"model_name": self._manifest.name, "model_version": self._manifest.version}
        if "id" in request:
            answer["id"] = request["id"]
        answer["parameters"] = {"variant": self._variant.id}
        answer["outputs"] = [encode_output(self._variant.outputs[i], outputs[i]) for i in wanted]
        return _json(200, answer)


def _tensor(spec: Any) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _parse(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise RequestError(400, "the body is not a JSON object")
    if "id" in request and not isinstance(request["id"], str):
        raise RequestError(400, "'id' must be a string")
    return request


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise RequestError(405, f"{method} is not allowed here, {allowed[0]} is")


def _json(status: int, value: dict[str, Any]) -> Response:
    try:
        return Response(status, json.dumps(value, separators=(",", ":"), allow_nan=False).encode())
    except ValueError:
        error = {"error": "the result holds NaN or infinity, which JSON cannot carry"}
        return Response(500, json.dumps(error).encode())
