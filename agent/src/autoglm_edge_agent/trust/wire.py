"""What the agent and its verifier say to each other over two pipes: a question, metadata files, a verdict.

Every frame is its length (4 bytes, big-endian) and so many bytes. The verifier is told the `Question`, sends one `Ask`
after the other, each answered by a frame that begins with one of the answers' letters, and ends with a `Verdict`.
"""

from __future__ import annotations

import struct
from typing import IO, ClassVar, Literal, TypeVar

from autoglm_edge_agent.trust.memory import Memory
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.documents import Document, Part, parse
from autoglm_edge_protocol.envelopes import Envelope
from autoglm_edge_protocol.limits import LIMITS

LENGTH = struct.Struct(">I")
FRAME_BYTES = 2 * LIMITS.metadata_bytes
"""No frame is larger: the memory of a device that has many models, a metadata file, or a document."""

FOUND, MISSING, TOO_LARGE = b"F", b"-", b"L"
"""What an answer begins with; after FOUND come the file's bytes."""

D = TypeVar("D", bound=Document)
MessageKind = Literal["desired", "command"]


class Question(Document):
    """What is to be verified, for whom, and what was seen before."""

    kind: ClassVar[str] = "question to the verifier"

    message: MessageKind
    envelope: Envelope
    offered: tuple[str, ...] | None = None
    """Metadata files that can be had; None: not known, all are to be asked for."""
    fleet: str
    device: str
    now: float
    """Unix time in seconds, by the device's clock."""
    memory: Memory


class Ask(Part):
    """A request for a metadata file."""

    name: str
    max_bytes: int


class Verdict(Part):
    """What the verifier has found."""

    document: str | None = None
    """The signed document, when it is accepted."""
    refusal: Reason | None = None
    """Why it is not."""
    timestamp_expires_at: float = 0.0
    """Unix time in seconds; 0: no timestamp has ever been seen."""


class FromVerifier(Document):
    """What the verifier says: one of the two."""

    kind: ClassVar[str] = "word of the verifier"

    ask: Ask | None = None
    verdict: Verdict | None = None


def parse_frame(model: type[D], data: bytes) -> D:
    """Read what a frame holds. Raises MalformedDocument, UnsupportedSchema."""
    return parse(model, data, FRAME_BYTES)


def write_frame(pipe: IO[bytes], data: bytes) -> None:
    """Write a frame. Raises OSError."""
    pipe.write(LENGTH.pack(len(data)) + data)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes:
    """Read a frame. Raises EOFError when the pipe ends before its end, or the frame is larger than any may be."""
    (size,) = LENGTH.unpack(_exactly(pipe, LENGTH.size))
    if size > FRAME_BYTES:
        raise EOFError(f"a frame of {size} bytes")
    return _exactly(pipe, size)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError("the other side is gone")
    return data
