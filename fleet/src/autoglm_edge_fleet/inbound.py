"""Reading what devices send: nothing here is trusted, and everything that cannot be true is refused with a reason.

Pure: bytes and a topic in, a checked document out.
"""

from __future__ import annotations

from typing import Any, TypeVar

from autoglm_edge_fleet.errors import RefusedReport
from autoglm_edge_fleet.limits import FLEET_LIMITS
from autoglm_edge_fleet.printable import printable
from autoglm_edge_protocol.commands import Answer
from autoglm_edge_protocol.deployment import Presence, ReportedState
from autoglm_edge_protocol.documents import Document, parse
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.telemetry import TelemetryBatch
from autoglm_edge_protocol.topics import Channel, Topic
from autoglm_edge_protocol.transfer import FetchRequest, StreamCredit

D = TypeVar("D", bound=Document)
Report = Presence | ReportedState | Answer | TelemetryBatch


def read_report(topic: Topic, payload: bytes) -> Report:
    """Read a control message of a device. Raises MalformedDocument, UnsupportedSchema, RefusedReport."""
    document: Report
    match topic.channel:
        case Channel.PRESENCE:
            document = _read(Presence, payload)
        case Channel.REPORTED:
            document = _read(ReportedState, payload)
        case Channel.ANSWER:
            document = _read(Answer, payload)
        case Channel.TELEMETRY:
            document = _read(TelemetryBatch, payload)
        case other:
            raise RefusedReport(f"a device does not send on the channel {other.value}")
    if isinstance(document, ReportedState) and document.deployment is not None:
        _check_generation(document.deployment.generation)
    if document.device != topic.device:
        raise RefusedReport(f"speaks for another device, {printable(document.device)}")
    return document


def _check_generation(generation: int) -> None:
    # The next deployment gets a greater one, and that must still be a number that a document carries.
    if generation > FLEET_LIMITS.largest_reported_generation:
        raise RefusedReport(f"has the generation {generation}, which nobody issued")


def read_fetch(payload: bytes) -> FetchRequest:
    """Read a request for blocks. Raises MalformedDocument, UnsupportedSchema, RefusedReport."""
    return _read(FetchRequest, payload)


def read_credit(payload: bytes) -> StreamCredit:
    """Read how far a device has followed a stream. Raises MalformedDocument, UnsupportedSchema, RefusedReport."""
    return _read(StreamCredit, payload)


def _read(model: type[D], payload: bytes) -> D:
    document = parse(model, payload)
    _check_integers(document.model_dump())
    # Infinity and NaN are read but written as null: what could not be read again must not be stored.
    return parse(model, document.to_bytes(), 2 * LIMITS.control_bytes)


def _check_integers(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_integers(key)
            _check_integers(item)
    elif isinstance(value, tuple | list):
        for item in value:
            _check_integers(item)
    elif isinstance(value, int) and abs(value) > FLEET_LIMITS.largest_integer:
        raise RefusedReport(f"has a number beyond {FLEET_LIMITS.largest_integer}")
