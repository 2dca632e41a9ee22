"""The Open Inference Protocol v2 over gRPC: the same service as over HTTP, in messages. Needs the extra `grpc`.

gRPC opens its own socket: several processes may have the address at once (SO_REUSEPORT), so that an old and a new
worker overlap. A connection that waits in the queue of the old one at that instant is reset, and its client told
UNAVAILABLE, after which it may ask again.
Sources: Open Inference Protocol (KServe), "gRPC"; Triton Inference Server, gRPC forms of its extensions.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np

from autoglm_edge_agent.inference.control import AccessOrder
from autoglm_edge_agent.inference.errors import ModelUnusable, RequestError
from autoglm_edge_agent.inference.messages import Request, Response
from autoglm_edge_agent.inference.proto import PROTO, read_proto
from autoglm_edge_agent.inference.raw_tensors import encode_raw
from autoglm_edge_agent.inference.service import Output, Service
from autoglm_edge_protocol.limits import LIMITS

log = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"
STATUSES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""What a status of HTTP is here; INTERNAL where it is none of these."""
MOST_CALLS = 32
"""At the same time; a client that asks for one more is told RESOURCE_EXHAUSTED. gRPC reads a whole message before it
asks anybody, so this and the largest message bound the memory."""
STOP_S = 3600.0
"""How long calls may take while the server ends: whoever ends the worker knows better."""
_HEAD_BYTES = 1024 * 1024
"""What a message may have besides its tensors."""
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


class GrpcServer:
    """Serves on an address of its own.

    Args:
        guard: answers those that may not ask.
        counted: told of each inference how many microseconds it took, and its status as in HTTP.
    """

    def __init__(
        self,
        service: Service,
        guard: Callable[[Request], Response | None] | None,
        counted: Callable[[float, int], None],
    ) -> None:
        definitions = read_proto(PROTO)
        self._endpoints = Endpoints(service, definitions.messages)
        self._counted = counted
        largest = LIMITS.request_body_bytes + _HEAD_BYTES
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", largest),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 1),
            ],
            maximum_concurrent_rpcs=MOST_CALLS,
        )
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._handler(name), request_deserializer=asked.FromString, response_serializer=_serialized
            )
            for name, (asked, _) in definitions.services[SERVICE].items()
        }
        self._server.add_generic_rpc_handlers((_Calls(handlers, guard),))

    async def start(self, address: str, access: AccessOrder) -> None:
        """Begin to serve. Raises ModelUnusable where the address or the certificates cannot be used."""
        try:
            credentials = _credentials(access)
            if credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, credentials)
        except (OSError, RuntimeError) as error:
            raise ModelUnusable(f"[inference] grpc cannot be served on {address}: {error}") from None
        await self._server.start()

    async def drain(self) -> None:
        """Accept no more, and return when what was accepted is answered."""
        await self._server.stop(STOP_S)

    def _handler(self, name: str) -> Callable[[Any, Any], Any]:
        endpoint = getattr(self._endpoints, name)

        async def handle(asked: Any, context: Any) -> Any:
            began, status = time.perf_counter(), 200
            try:
                answer = endpoint(asked, context)
                return await answer if asyncio.iscoroutine(answer) else answer
            except RequestError as error:
                status = error.status
                await _abort(context, error)
            except grpc.aio.AbortError:
                raise
            except Exception:
                status = 500
                log.exception("a request could not be answered")
                await _abort(context, RequestError(500, "internal error; the log of the agent tells more"))
            finally:
                if name == "ModelInfer":
                    self._counted((time.perf_counter() - began) * 1e6, status)

        return handle


class _Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds who answers a call: before its message is read, so that nobody sends much who may not ask."""

    def __init__(self, handlers: Mapping[str, Any], guard: Callable[[Request], Response | None] | None) -> None:
        self._handlers = {f"/{SERVICE}/{name}": handler for name, handler in handlers.items()}
        self._guard = guard
        # As of a call with many messages: of those none is read until somebody asks for it.
        self._denial = grpc.stream_unary_rpc_method_handler(_deny)

    def service(self, handler_call_details: Any) -> Any:
        """See `grpc.GenericRpcHandler`."""
        if self._guard is not None:
            metadata = handler_call_details.invocation_metadata or ()
            headers = {key: value for key, value in metadata if isinstance(value, str)}
            if self._guard(Request("POST", "/", headers)) is not None:
                return self._denial
        return self._handlers.get(handler_call_details.method)


async def _deny(_messages: Any, context: Any) -> None:
    await _abort(context, RequestError(401, "this address needs the device's token: authorization: Bearer TOKEN"))


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
        return await self._service.infer(
            request,
            _client(context),
            beside=beside,
            answer=lambda outputs: self._response(asked.id, outputs),
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
            shared = "shared_memory_region" in output.parameters
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


def _serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


async def _abort(context: Any, error: RequestError) -> None:
    later = error.retry_after_s if error.status != 503 else error.retry_after_s or 1.0
    metadata = () if later is None else (("retry-after", str(max(1, math.ceil(later)))),)
    await context.abort(STATUSES.get(error.status, grpc.StatusCode.INTERNAL), str(error), metadata)


def _credentials(access: AccessOrder) -> Any:
    """Return the server's side of TLS, None where it is not asked for. Raises OSError."""
    if access.cert_file is None or access.key_file is None:
        return None
    authority = None if access.client_ca_file is None else access.client_ca_file.read_bytes()
    pair = (access.key_file.read_bytes(), access.cert_file.read_bytes())
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)
