"""Message classes of a .proto file, made when it is read: no generated code that a newer protobuf would refuse.

Knows the part of the language that open_inference.proto uses: proto3 with messages in messages, enums, maps, oneofs and
services of single calls. The classes live in a pool of their own, beside those of any other definition of the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

PROTO = Path(__file__).with_name("open_inference.proto")
"""The protocol's own."""
_TOKEN = re.compile(r'//[^\n]*|\s+|([A-Za-z_][\w.]*|\d+|"[^"]*"|[{}()<>=;,])|(.)')
_SCALARS = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}
_OPTIONAL = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
_REPEATED = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED


@dataclass(frozen=True)
class Definitions:
    """What a file defines."""

    messages: Mapping[str, Any]
    """The classes by name."""
    services: Mapping[str, Mapping[str, tuple[Any, Any]]]
    """Of each service, by its full name: the classes of each call's request and response."""


def read_proto(path: Path) -> Definitions:
    """Read a file. Raises ValueError for what is not known here, OSError."""
    file = _Parser(path.read_text(encoding="utf-8")).file(path.name)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    messages = {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{message.name}"))
        for message in file.message_type
    }
    services = {
        f"{file.package}.{service.name}": {
            call.name: (messages[call.input_type], messages[call.output_type]) for call in service.method
        }
        for service in file.service
    }
    return Definitions(messages, services)


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def file(self, name: str) -> Any:
        file = descriptor_pb2.FileDescriptorProto(name=name)
        while self._at < len(self._tokens):
            kind = self._next()
            if kind == "syntax":
                self._expect("=")
                file.syntax = self._next().strip('"')
                self._expect(";")
            elif kind == "package":
                file.package = self._next()
                self._expect(";")
            elif kind == "message":
                self._message(file.message_type.add())
            elif kind == "enum":
                self._enum(file.enum_type.add())
            elif kind == "service":
                self._service(file.service.add())
            else:
                raise ValueError(f"{kind!r} is not known here")
        return file

    def _message(self, message: Any) -> None:
        message.name = self._next()
        self._expect("{")
        while not self._takes("}"):
            if self._takes("message"):
                self._message(message.nested_type.add())
            elif self._takes("oneof"):
                message.oneof_decl.add(name=self._next())
                self._expect("{")
                while not self._takes("}"):
                    self._field(message).oneof_index = len(message.oneof_decl) - 1
            else:
                self._field(message)

    def _field(self, message: Any) -> Any:
        field = message.field.add(label=_REPEATED if self._takes("repeated") else _OPTIONAL)
        kind = self._next()
        if kind == "map":
            self._expect("<")
            key, _, value = self._next(), self._expect(","), self._next()
            self._expect(">")
        else:
            key = value = ""
        field.name = self._next()
        self._expect("=")
        field.number = int(self._next())
        self._expect(";")
        if kind == "map":
            # A map is a repeated message of key and value. Source: Protocol Buffers, "Maps", backwards compatibility.
            entry = message.nested_type.add(name=f"{field.name.title().replace('_', '')}Entry")
            entry.options.map_entry = True
            for number, (name, each) in enumerate((("key", key), ("value", value)), 1):
                _typed(entry.field.add(name=name, number=number, label=_OPTIONAL), each)
            field.label = _REPEATED
            kind = entry.name
        _typed(field, kind)
        return field

    def _enum(self, enum: Any) -> None:
        enum.name = self._next()
        self._expect("{")
        while not self._takes("}"):
            name, _, number = self._next(), self._expect("="), int(self._next())
            enum.value.add(name=name, number=number)
            self._expect(";")

    def _service(self, service: Any) -> None:
        service.name = self._next()
        self._expect("{")
        while not self._takes("}"):
            self._expect("rpc")
            call = service.method.add(name=self._next())
            self._expect("(")
            call.input_type = self._next()
            for token in (")", "returns", "("):
                self._expect(token)
            call.output_type = self._next()
            for token in (")", "{", "}"):
                self._expect(token)

    def _next(self) -> str:
        if self._at == len(self._tokens):
            raise ValueError("the file ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _takes(self, token: str) -> bool:
        found = self._at < len(self._tokens) and self._tokens[self._at] == token
        self._at += found
        return found

    def _expect(self, token: str) -> str:
        found = self._next()
        if found != token:
            raise ValueError(f"{token!r} was expected, {found!r} came")
        return found


def _typed(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type_name = kind  # whether it is a message or an enum the pool finds out


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        if match[2]:
            raise ValueError(f"{match[2]!r} is not known here")
        if match[1]:
            yield match[1]
