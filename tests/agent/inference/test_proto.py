"""The definitions of gRPC: Triton's own, by name and number, read from a text of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.protobuf", reason="the extra is not installed")

from autoglm_edge_agent.inference.proto import PROTO, read_proto


def _fields(message: Any) -> dict[tuple[str, str], tuple[int, int]]:
    """The number and the wire's type of every field, those of messages inside too."""
    found = {(message.full_name, field.name): (field.number, field.type) for field in message.fields}
    for inner in message.nested_types:
        found |= _fields(inner)
    return found


def test_every_field_is_as_triton_has_it() -> None:
    service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2")
    model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    theirs = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}
    definitions = read_proto(PROTO)
    for name, message in definitions.messages.items():
        ours, expected = _fields(message.DESCRIPTOR), _fields(theirs[name])
        assert {key: expected.get(key) for key in ours} == ours
    (calls,) = definitions.services.values()
    described = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for name, (asked, answered) in calls.items():
        assert described[name].input_type.full_name == asked.DESCRIPTOR.full_name
        assert described[name].output_type.full_name == answered.DESCRIPTOR.full_name


def test_maps_oneofs_and_enums(tmp_path: Path) -> None:
    text = """
    syntax = "proto3"; package p;  // a comment
    enum E { A = 0; B = 1; }
    message M { message N { E e = 1; } map<string, N> some_map = 3; oneof o { int64 a = 1; string b = 2; } }
    """
    (tmp_path / "m.proto").write_text(text)
    made = read_proto(tmp_path / "m.proto").messages["M"]()
    made.some_map["k"].e = 1
    made.a = 5
    made.b = "x"
    assert (made.WhichOneof("o"), made.a) == ("b", 0)
    assert type(made).FromString(made.SerializeToString()).some_map["k"].e == 1


@pytest.mark.parametrize(
    "text",
    [
        'import "other.proto";',
        "message M { string a = 1 }",
        "message M { string a = x; }",
        "message M {",
        "message M { extensions 1 to 5; }",
        "service S { rpc A(stream B) returns (C) {} }",
        "message M { string a = 1 [deprecated = true]; }",
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.proto").write_text(f'syntax = "proto3"; package p; {text}')
    with pytest.raises(ValueError, match=r"known|expected|early|literal"):
        read_proto(tmp_path / "m.proto")
