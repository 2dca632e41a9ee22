"""Heads of HTTP/1.1 requests, with llhttp (httptools) as their parser, and of answers. No sockets here.

Source: RFC 9112.
"""

from __future__ import annotations

import http
import re
from functools import lru_cache

import httptools

from autoglm_edge_agent.inference.messages import Response, error
from autoglm_edge_protocol.limits import LIMITS

_HEAD_END = b"\r\n\r\n"
_HUGE_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*\d{16}", re.IGNORECASE)


class Refused(Exception):
    """The request is answered with an error, and the connection ends."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Head:
    """What the parser tells of one request's head, and of its body where that comes in chunks."""

    def __init__(self, data: bytes) -> None:
        """Raises Refused."""
        self.data = data
        self.target = b""
        self.headers: dict[str, str] = {}
        self.chunks = bytearray()
        """Joined at once: of many pieces of a byte each most of the memory would be their own bookkeeping."""
        self.complete = False
        self.parser = httptools.HttpRequestParser(self)
        self.upgrade = False
        self.keep_alive = False
        self.feed(data)
        if self.upgrade:
            # CONNECT, or a wish for another protocol: what follows would be that protocol's.
            self.complete = True
        self.chunked = not self.complete and "transfer-encoding" in self.headers
        # Where one message ends in what came is the parser's secret: what follows a chunked one is not answered.
        self.keep_alive = self.keep_alive and not self.upgrade and not self.chunked
        self.content_length = 0 if self.chunked else int(self.headers.get("content-length", "0"))
        self.expects_continue = self.headers.get("expect", "").lower() == "100-continue"
        self.method = self.parser.get_method().decode("ascii", "replace")
        self.path = self.target.decode("ascii", "replace")

    @property
    def repeatable(self) -> bool:
        """Whether it says all that was to be known of a request, so that the same bytes say the same again."""
        return not (self.chunked or self.upgrade)

    def feed(self, data: bytes) -> None:
        """Parse more. Raises Refused."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgrade = True
        except httptools.HttpParserError as problem:
            if self.headers.get("transfer-encoding", "chunked").lower() != "chunked":
                raise Refused(error(501, "the only transfer coding known here is chunked")) from None
            raise Refused(error(400, f"not HTTP/1.1 as it should be: {problem}")) from None

    def on_url(self, url: bytes) -> None:
        """See `httptools.HttpRequestParser`."""
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """See `httptools.HttpRequestParser`."""
        if not self.complete:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        if not self.complete:
            self.keep_alive = bool(self.parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        """See `httptools.HttpRequestParser`."""
        if not self.complete:
            self.chunks += body

    def on_message_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        self.complete = True


def cut_head(received: bytearray) -> bytes | None:
    """Take a whole head out of what was received; None where it has not come yet. Raises Refused (413, 431)."""
    # Empty lines before a request are to be overlooked. Source: RFC 9112, 2.2.
    while received[:2] == b"\r\n":
        del received[:2]
    end = received.find(_HEAD_END)
    if end < 0 or end > LIMITS.request_head_bytes:
        if len(received) > LIMITS.request_head_bytes:
            raise Refused(error(431, f"the head has more than {LIMITS.request_head_bytes} bytes"))
        return None
    data = bytes(received[: end + len(_HEAD_END)])
    del received[: len(data)]
    if _HUGE_LENGTH.search(data):
        raise Refused(too_large())
    return data


def check_head(head: Head) -> None:
    """Raises Refused for what is not served here (400, 413, 415)."""
    if head.parser.get_http_version() == "1.1" and "host" not in head.headers:
        raise Refused(error(400, "the header Host is missing"))
    if head.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(error(415, "send the body without a content coding"))
    if head.content_length > LIMITS.request_body_bytes:
        raise Refused(too_large())


def answer_head(response: Response, length: int, *, close: bool) -> bytes:
    """Return the head of an answer with a body of so many bytes."""
    more = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    if close:
        more += "connection: close\r\n"
    if response.status == 503 and "retry-after" not in response.headers:
        more += "retry-after: 1\r\n"
    return f"{_first_lines(response.status, response.content_type)}{length}\r\n{more}\r\n".encode("latin-1", "replace")


@lru_cache(maxsize=64)
def _first_lines(status: int, content_type: str) -> str:
    phrase = http.HTTPStatus(status).phrase
    return f"HTTP/1.1 {status} {phrase}\r\ncontent-type: {content_type}\r\ncontent-length: "


def too_large() -> Response:
    """Return the answer to a body that is too large."""
    return error(413, f"the body has more than {LIMITS.request_body_bytes} bytes")
