"""Frozen dataclasses as JSON and back, by their type hints: numbers, strings, None, tuples and dataclasses."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def to_json(record: Any) -> bytes:
    """Return a dataclass as JSON; infinities are written as Python's json does."""
    return json.dumps(asdict(record), sort_keys=True).encode()


def from_json(kind: type[Record], data: bytes) -> Record:
    """Return the dataclass that `to_json` wrote. Raises ValueError where the data is anything else."""
    try:
        found: Record = _read(kind, json.loads(data))
        return found
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from None


def _read(kind: Any, value: Any) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        names = {field.name for field in fields(kind)}
        if set(value) != names:
            raise ValueError(f"not a {kind.__name__}")
        return kind(**{name: _read(hints[name], value[name]) for name in names})
    origin = get_origin(kind)
    if origin in (UnionType, Union):
        inner = [entry for entry in get_args(kind) if entry is not NoneType]
        return None if value is None and NoneType in get_args(kind) else _read(inner[0], value)
    if origin is tuple:
        return _read_tuple(get_args(kind), value)
    if origin is dict:
        return {key: _read(get_args(kind)[1], entry) for key, entry in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind}")
    return value


def _read_tuple(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError("not a tuple")
    if kinds[1:] == (...,):
        return tuple(_read(kinds[0], entry) for entry in value)
    return tuple(_read(kind, entry) for kind, entry in zip(kinds, value, strict=True))
