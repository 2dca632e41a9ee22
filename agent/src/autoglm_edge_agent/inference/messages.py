"""A request and its answer, as the server and the protocol's endpoints hand them to each other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

JSON = "application/json"
BINARY = "application/octet-stream"

Buffer = "bytes | memoryview"


@dataclass(frozen=True)
class Request:
    """One request."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in small letters."""
    body: memoryview | bytes = b""
    client: Hashable = None
    """Who asks: what the turns of clients go by."""


@dataclass(frozen=True)
class Response:
    """One answer: its body in pieces, so that large arrays need not be copied together."""

    status: int
    body: bytes | Sequence[bytes | memoryview] = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def pieces(self) -> Sequence[bytes | memoryview]:
        """The body's pieces."""
        return (self.body,) if isinstance(self.body, bytes) else self.body


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as the Open Inference Protocol has it: an object with the key `error`."""
    text = message.encode("utf-8", "replace").decode()  # what a client sent may hold what UTF-8 cannot
    return Response(status, orjson.dumps({"error": text}), headers=headers or {})


def json_response(status: int, value: Any) -> Response:
    """Return a value as JSON, arrays of numbers in it as lists."""
    return Response(status, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
