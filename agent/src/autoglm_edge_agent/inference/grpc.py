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
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from autoglm_edge_agent.inference.control import AccessOrder
from autoglm_edge_agent.inference.errors import ModelUnusable, RequestError
from autoglm_edge_agent.inference.grpc_endpoints import Endpoints
from autoglm_edge_agent.inference.messages import Request, Response
from autoglm_edge_agent.inference.proto import PROTO, read_proto
from autoglm_edge_agent.inference.service import Service
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
"""At the same time; a client that asks for one more is told RESOURCE_EXHAUSTED. gRPC has read a whole message before
anybody can say that there is no room, so this and the largest message bound the memory."""
STOP_S = 3600.0
"""How long calls may take while the server ends: whoever ends the worker knows better."""
_HEAD_BYTES = 1024 * 1024
"""What a message may have besides its tensors."""


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
