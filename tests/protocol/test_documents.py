from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.protocol.example_documents import DIGEST, EXAMPLES, MANIFEST, VARIANT

from autoglm_edge_protocol.chunks import ChunkIndex
from autoglm_edge_protocol.deployment import DesiredState, Presence
from autoglm_edge_protocol.documents import Document, parse
from autoglm_edge_protocol.errors import MalformedDocument, UnsupportedSchema
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import Manifest, Quality
from autoglm_edge_protocol.transfer import FetchRequest

MODELS = sorted({type(example) for example in EXAMPLES}, key=lambda model: model.kind)
PRESENCE = {"schema_version": 1, "device": "pi", "session": 3, "online": True}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _presence(**changes: Any) -> bytes:
    return json.dumps({**PRESENCE, **changes}).encode()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_every_document_survives_the_wire_and_the_file(example: Document) -> None:
    model = type(example)
    limit = LIMITS.manifest_bytes
    assert parse(model, example.to_bytes(), limit) == example
    assert parse(model, example.to_text().encode(), limit) == example
    assert parse(model, example.to_bytes(), limit).to_bytes() == example.to_bytes()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_unknown_fields_are_ignored_at_the_top_and_inside(example: Document) -> None:
    value = json.loads(example.to_bytes())
    value["from-the-future"] = {"a": [1, None]}
    for inner in value.values():
        if isinstance(inner, dict) and "from-the-future" not in inner and "name" in inner:
            inner["new"] = 1
    assert parse(type(example), json.dumps(value).encode(), LIMITS.manifest_bytes) == example


@given(data=st.binary(max_size=300), model=st.sampled_from(MODELS))
def test_arbitrary_bytes_raise_nothing_else(data: bytes, model: type[Document]) -> None:
    with pytest.raises((MalformedDocument, UnsupportedSchema)):
        parse(model, data)


@given(value=json_values, model=st.sampled_from(MODELS))
def test_arbitrary_json_raises_nothing_else(value: object, model: type[Document]) -> None:
    with pytest.raises((MalformedDocument, UnsupportedSchema)):
        parse(model, json.dumps(value).encode())


@given(data=st.data(), example=st.sampled_from(EXAMPLES))
def test_a_document_with_any_field_replaced_raises_nothing_else(data: st.DataObject, example: Document) -> None:
    value = json.loads(example.to_bytes())
    value[data.draw(st.sampled_from(sorted(value)))] = data.draw(json_values)
    try:
        parse(type(example), json.dumps(value).encode(), LIMITS.manifest_bytes)
    except (MalformedDocument, UnsupportedSchema) as error:
        assert str(error).isprintable()


@given(data=st.data(), example=st.sampled_from(EXAMPLES))
def test_a_truncated_document_is_malformed(data: st.DataObject, example: Document) -> None:
    whole = example.to_bytes()
    with pytest.raises(MalformedDocument):
        parse(type(example), whole[: data.draw(st.integers(0, len(whole) - 1))], LIMITS.manifest_bytes)


MALFORMED = {
    "empty": b"",
    "not an object": b"[1]",
    "not UTF-8": b'{"device": "\xff"}',
    "UTF-16": json.dumps(PRESENCE).encode("utf-16-le"),
    "byte order mark": b"\xef\xbb\xbf" + _presence(),
    "lone surrogate": b'{"schema_version":1,"device":"\\ud800","session":3,"online":true}',
    "NaN": _presence(extra=float("nan")),
    "Infinity": _presence(extra=float("-inf")),
    "number beyond a double": b'{"device":"pi","session":1e999,"online":true}',
    "number of 5000 digits": b'{"device":"pi","session":' + b"9" * 5000 + b',"online":true}',
    "number beyond a double's integers": _presence(session=2**53),
    "negative count": _presence(session=-1),
    "deep lists": b"[" * 100_000,
    "deep objects in an unknown field": b'{"x":' * 5000 + b"1" + b"}" * 5000,
    "a name twice": b'{"device":"pi","device":"other","session":1,"online":true}',
    "a name twice inside": b'{"device":"pi","session":1,"online":true,"x":{"a":1,"a":2}}',
    "bool as version": _presence(schema_version=True),
    "float as version": _presence(schema_version=1.0),
    "newer float as version": _presence(schema_version=2.0),
    "string as version": _presence(schema_version="1"),
    "version zero": _presence(schema_version=0),
    "null version": _presence(schema_version=None),
    "string as number": _presence(session="3"),
    "bool as number": _presence(session=True),
    "string as bool": _presence(online="yes"),
    "number as name": _presence(device=5),
    "name with newline": _presence(device="pi\n"),
    "missing field": b'{"device":"pi","session":1}',
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(data: bytes) -> None:
    with pytest.raises(MalformedDocument) as caught:
        parse(Presence, data)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_a_newer_schema_is_refused_before_its_fields_are_read() -> None:
    with pytest.raises(UnsupportedSchema, match="schema version 2, but only up to 1") as caught:
        parse(Presence, b'{"schema_version":2,"device":{"now":"an object"}}')
    assert (caught.value.found, caught.value.supported) == (2, 1)


def test_size_is_checked_before_anything_else() -> None:
    with pytest.raises(MalformedDocument, match="131073 bytes, at most 131072"):
        parse(Presence, b" " * (LIMITS.control_bytes + 1))
    assert parse(Presence, _presence() + b" " * (LIMITS.control_bytes - len(_presence()))).online


def test_documents_are_frozen_and_never_hold_what_json_cannot_say() -> None:
    with pytest.raises(ValidationError):
        Presence(device="pi", session=1, online=True).online = False
    with pytest.raises(ValidationError):
        Quality(metric="sqnr", value=float("inf"), samples=1)
    plan = MANIFEST.provenance.model_copy(update={"plan": {"threshold": float("nan")}})
    assert b"NaN" not in MANIFEST.model_copy(update={"provenance": plan}).to_bytes()


def test_text_is_readable_and_not_escaped() -> None:
    assert "Ausgabe „scores" in EXAMPLES[4].to_text()
    assert EXAMPLES[4].to_bytes().count(b"\n") == 0


def _manifest(**changes: Any) -> Manifest:
    return Manifest.model_validate({**MANIFEST.model_dump(), **changes})


def _files(*paths: str) -> list[dict[str, object]]:
    entries = [entry.model_dump() for entry in MANIFEST.files]
    return [*entries, *({"path": path, "size_bytes": 0, "sha256": DIGEST} for path in paths)]


INCONSISTENT = {
    "a path twice": ({"files": _files("labels.txt")}, "same path"),
    "twice where case does not count": ({"files": _files("LABELS.txt")}, "same path"),
    "a file and a folder": ({"files": _files("Report.html/x")}, "both a file and a folder"),
    "the manifest lists itself": ({"files": _files("Manifest.json")}, "cannot list itself"),
    "two variants of one id": ({"variants": [VARIANT.model_dump()] * 2}, "same id"),
    "no variant": ({"variants": []}, "at least 1 item"),
    "golden set not listed": ({"golden": "golden/other.npz"}, "not listed"),
    "no chunk index": ({"files": [entry for entry in _files() if entry["path"] != "chunks.json"]}, "chunks.json"),
    "too large in all": (
        {"files": [*_files(), {"path": "a", "size_bytes": LIMITS.bundle_bytes, "sha256": DIGEST}] * 1
         + [{"path": "b", "size_bytes": 1, "sha256": DIGEST}]},
        "bytes in all",
    ),
    "a traversal": ({"labels": "../labels.txt"}, "not a plain relative path"),
    "model not among its files": (
        {"variants": [{**VARIANT.model_dump(), "model": "labels.txt"}]}, "is not among its files",
    ),
    "a version that is longer than any": (
        {"variants": [{**VARIANT.model_dump(), "needs": {"runtime": "onnxruntime", "min_version": "9" * 5000}}]},
        "at most 64 characters",
    ),
    "tolerances of other outputs": (
        {"variants": [{**VARIANT.model_dump(), "tolerances": [{"output": "other"}]}]}, "one tolerance for each output",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "problem"), INCONSISTENT.values(), ids=INCONSISTENT.keys())
def test_inconsistent_manifest(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        _manifest(**changes)


def test_manifest_finds_its_parts() -> None:
    assert str(MANIFEST.id) == "magika@1.0.0"
    assert MANIFEST.variant("fp32") is MANIFEST.variants[0]
    assert MANIFEST.variant("int4") is None
    assert MANIFEST.file("labels.txt").size_bytes == 0
    with pytest.raises(KeyError):
        MANIFEST.file("nothing")
    paths = [entry.path for entry in MANIFEST.device_files(VARIANT)]
    assert paths == ["golden/golden.npz", "labels.txt", "variants/fp32/model.onnx"]


def test_a_device_needs_the_libraries_of_its_own_machine_only() -> None:
    libraries = {"x86_64": "ops/x86_64/a.so", "aarch64": "ops/aarch64/a.so", "armv7l": "ops/any/b.so"}
    needs = VARIANT.needs.model_copy(
        update={"custom_ops": {name: (path,) for name, path in libraries.items()} | {"i686": ("ops/any/b.so",)}}
    )
    variant = VARIANT.model_copy(update={"needs": needs, "files": (*VARIANT.files, *libraries.values())})
    entries = tuple(MANIFEST.file("labels.txt").model_copy(update={"path": path}) for path in libraries.values())
    manifest = MANIFEST.model_copy(update={"variants": (variant,), "files": (*MANIFEST.files, *entries)})
    plain = {entry.path for entry in MANIFEST.device_files(VARIANT)}

    def sent(machine: str | None) -> set[str]:
        return {entry.path for entry in manifest.device_files(variant, machine)} - plain

    assert sent(None) == set(libraries.values())
    assert sent("aarch64") == {"ops/aarch64/a.so"}
    assert sent("i686") == sent("armv7l") == {"ops/any/b.so"}
    assert sent("riscv64") == set()
    assert plain <= {entry.path for entry in manifest.device_files(variant, "riscv64")}


def test_a_desired_state_starts_at_generation_one() -> None:
    with pytest.raises(ValidationError):
        DesiredState(fleet="f", device="d", generation=0, bundle=None)


def test_chunk_sizes_must_add_up() -> None:
    text = f'{{"files":[{{"sha256":"{DIGEST}","size_bytes":4,"chunks":[{{"size_bytes":3,"sha256":"{DIGEST}"}}]}}]}}'
    with pytest.raises(MalformedDocument, match="do not add up"):
        parse(ChunkIndex, text.encode())


@pytest.mark.parametrize(
    ("block_bytes", "ranges"),
    [
        (512, []),
        (512, [(0, 65)]),
        (512, [(0, 40), (100, 25)]),
        (512, [(-1, 1)]),
        (512, [(0, 0)]),
        (512, [(2**60, 1)]),
        (511, [(0, 1)]),
        (LIMITS.block_bytes + 1, [(0, 1)]),
        (512, [(number * 2, 1) for number in range(65)]),
    ],
)
def test_requests_beyond_the_limits(block_bytes: int, ranges: list[tuple[int, int]]) -> None:
    data = json.dumps({"request_id": 0, "sha256": DIGEST, "block_bytes": block_bytes, "ranges": ranges}).encode()
    with pytest.raises(MalformedDocument):
        parse(FetchRequest, data)
