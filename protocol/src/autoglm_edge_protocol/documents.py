"""The common shape of every document: frozen, versioned, read with limits.

A document is JSON (RFC 8259) in UTF-8, without the NaN and Infinity that some writers add, and without a name twice in
one object: readers differ about which one counts. Values have the JSON type of their field; "1" is no number. Unknown
extra fields are ignored, so that a newer writer can add some; a newer `schema_version` is refused, because it means
that the old fields no longer say what they said.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoglm_edge_protocol.errors import MalformedDocument, UnsupportedSchema
from autoglm_edge_protocol.limits import LIMITS

D = TypeVar("D", bound="Document")

LARGEST_INTEGER = 2**53 - 1
"""Of any count: what a double holds exactly (RFC 8259, section 6), for languages whose numbers are doubles."""

Count = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]


class Part(BaseModel):
    """A piece of a document. Frozen; unknown fields are ignored."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore", allow_inf_nan=False)


class Document(Part):
    """A versioned document."""

    kind: ClassVar[str] = "document"
    newest_schema: ClassVar[int] = 1

    schema_version: int = Field(default=1, ge=1, strict=True)

    def to_bytes(self) -> bytes:
        """Return compact, deterministic JSON, for the wire."""
        return json.dumps(
            self.model_dump(mode="json"), separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()

    def to_text(self) -> str:
        """Return indented, deterministic JSON, for people and files."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def parse(model: type[D], data: bytes, limit_bytes: int = LIMITS.control_bytes) -> D:
    """Read a document of the given type.

    Raises:
        MalformedDocument: `data` is too large, not JSON, or not of this shape.
        UnsupportedSchema: it is of a newer schema version than this release understands.
    """
    if len(data) > limit_bytes:
        raise MalformedDocument(model.kind, f"{len(data)} bytes, at most {limit_bytes} are accepted")
    try:
        value: Any = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise MalformedDocument(model.kind, f"not JSON ({error})") from None
    if not isinstance(value, dict):
        raise MalformedDocument(model.kind, "not a JSON object")
    version = value.get("schema_version", 1)
    if isinstance(version, int) and not isinstance(version, bool) and version > model.newest_schema:
        raise UnsupportedSchema(model.kind, version, model.newest_schema)
    try:
        return model.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise MalformedDocument(model.kind, first_problem(error)) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name is twice in one object")
    return value


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation as one printable line."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "the whole"
    line = f"{where}: {problem['msg']}"
    return "".join(character if character.isprintable() else "?" for character in line[:500])
