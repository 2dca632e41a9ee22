"""The calls of the Open Inference Protocol over gRPC: from a message to its answer. No sockets here, and no gRPC.

Sources: Open Inference Protocol (KServe), "gRPC"; Triton Inference Server, gRPC forms of its extensions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.raw_tensors import encode_raw
from autoglm_edge_agent.inference.service import Output, Service

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where a tensor is that does not come as raw bytes. Source: Open Inference Protocol, "InferTensorContents"."""

_Messages = Mapping[str, Any]


class Endpoints:
    """One method for each call of the service, by its name there."""

    def __init__(self, service: Service, messages: _Messages) -> None:
        self._service = service
        self._messages = messages

    def ServerLive(self, _asked: Any, _context: Any) -> Any:  # noqa: N802 - the names are those of the calls
        """Whether the process lives."""
        return self._messages["ServerLiveResponse"](live=True)

    def ServerReady(self, _asked: Any, _context: Any) -> Any:  # noqa: N802
        """Whether it answers."""
        return self._messages["ServerReadyResponse"](ready=True)

    def ServerMetadata(self, _asked: Any, _context: Any) -> Any:  # noqa: N802
        """What answers."""
        return self._messages["ServerMetadataResponse"](**self._service.server())

    def ModelReady(self, asked: Any, _context: Any) -> Any:  # noqa: N802
        """Whether the model answers. Raises RequestError (404)."""
        self._check(asked.name, asked.version)
        return self._messages["ModelReadyResponse"](ready=True)

    def ModelMetadata(self, asked: Any, _context: Any) -> Any:  # noqa: N802
        """What goes in and comes out. Raises RequestError (404)."""
        self._check(asked.name, asked.version)
        return self._messages["ModelMetadataResponse"](**self._service.metadata())

    def ModelConfig(self, asked: Any, _context: Any) -> Any:  # noqa: N802
        """The same as Triton's configuration. Raises RequestError (404)."""
        self._check(asked.name, asked.version)
        return self._messages["ModelConfigResponse"](config=self._service.config())

    def ModelStatistics(self, asked: Any, _context: Any) -> Any:  # noqa: N802
        """What was asked of it. Raises RequestError (404)."""
        self._check(asked.name or self._service.name, asked.version)
        return self._messages["ModelStatisticsResponse"](**self._service.statistics())

    def RepositoryIndex(self, _asked: Any, _context: Any) -> Any:  # noqa: N802
        """The models."""
        return self._messages["RepositoryIndexResponse"](models=self._service.index())

    def SystemSharedMemoryStatus(self, asked: Any, _context: Any) -> Any:  # noqa: N802
        """The regions. Raises RequestError."""
        found = self._service.regions.status(asked.name or None)
        return self._messages["SystemSharedMemoryStatusResponse"](regions={each["name"]: each for each in found})

    def SystemSharedMemoryRegister(self, asked: Any, _context: Any) -> Any:  # noqa: N802
        """Open a region. Raises RequestError."""
        wanted = {"key": asked.key, "offset": asked.offset, "byte_size": asked.byte_size}
        self._service.regions.register(asked.name, wanted)
        return self._messages["SystemSharedMemoryRegisterResponse"]()

    def SystemSharedMemoryUnregister(self, asked: Any, _context: Any) -> Any:  # noqa: N802
        """Forget one or all. Raises RequestError."""
        self._service.regions.unregister(asked.name or None)
        return self._messages["SystemSharedMemoryUnregisterResponse"]()

    async def ModelInfer(self, asked: Any, context: Any) -> Any:  # noqa: N802
        """Run the model. Raises RequestError."""
        self._check(asked.model_name, asked.model_version)
        request, beside = _request(asked)
        _limit(request["parameters"], context.time_remaining())
        understood = self._service.understand(request, beside)
        return await self._service.infer(
            understood, _client(context), answer=lambda outputs: self._response(asked.id, outputs)
        )

    def _check(self, name: str, version: str) -> None:
        self._service.check_name(name)
        if version:
            self._service.check_version(version)

    def _response(self, identity: str, outputs: Sequence[Output]) -> Any:
        response = self._messages["ModelInferResponse"](
            model_name=self._service.name, model_version=self._service.version, id=identity
        )
        response.parameters["variant"].string_param = self._service.variant
        for output in outputs:
            shared = "shared_memory_region" in output.wanted.parameters
            described = self._service.to_shared_memory(output) if shared else output.described()
            parameters = described.pop("parameters")
            tensor = response.outputs.add(**described)
            for name, value in parameters.items():
                kind = "string_param" if isinstance(value, str) else "int64_param"
                setattr(tensor.parameters[name], kind, value)
            response.raw_output_contents.append(b"" if shared else bytes(encode_raw(output.array)))
        return response


def _request(asked: Any) -> tuple[dict[str, Any], dict[str, memoryview]]:
    """Return a request as JSON would have it, and the raw data of its inputs. Raises RequestError (400)."""
    raw = list(asked.raw_input_contents)
    beside: dict[str, memoryview] = {}
    inputs = []
    for tensor in asked.inputs:
        parameters = _parameters(tensor.parameters)
        item = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": parameters,
        }
        if "shared_memory_region" not in parameters:
            if asked.raw_input_contents:
                if not raw:
                    raise RequestError(400, f"the raw contents of input {tensor.name!r} are missing")
                if tensor.HasField("contents"):
                    raise RequestError(400, f"input {tensor.name!r}: its data is given in more than one way")
                beside[tensor.name] = memoryview(raw.pop(0))
            elif tensor.datatype == "BYTES":
                texts = np.array([*tensor.contents.bytes_contents, b""], dtype=object)[:-1]
                beside[tensor.name] = memoryview(encode_raw(texts))
            else:
                field = _CONTENTS.get(tensor.datatype)
                item["data"] = list(getattr(tensor.contents, field)) if field else []
        inputs.append(item)
    if raw:
        raise RequestError(400, f"{len(raw)} raw contents belong to no input")
    outputs = [{"name": each.name, "parameters": _parameters(each.parameters)} for each in asked.outputs]
    return {"inputs": inputs, "outputs": outputs, "parameters": _parameters(asked.parameters)}, beside


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is not None:
            found[name] = getattr(value, kind)
    return found


def _limit(parameters: dict[str, Any], left_s: float | None) -> None:
    """Let the deadline of the call itself count where it comes before the request's own."""
    if left_s is None or left_s == math.inf:
        return
    left_us = max(1, int(left_s * 1e6))
    asked_us = parameters.get("timeout", 0)
    if asked_us == 0 or (type(asked_us) is int and asked_us > left_us):
        parameters["timeout"] = left_us


def _client(context: Any) -> Hashable:
    return ("connection", context.peer())
