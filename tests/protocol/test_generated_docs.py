from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import generate_docs

from autoglm_edge_protocol.documents import Document
from autoglm_edge_protocol.manifest import Manifest


def _concrete(model: type[Document]) -> set[type[Document]]:
    return {found for child in model.__subclasses__() for found in {child, *_concrete(child)}}


def test_what_is_committed_is_current() -> None:
    assert generate_docs.stale(generate_docs.DOCS) == []


def test_every_document_of_the_protocol_has_a_schema() -> None:
    protocol = {model for model in _concrete(Document) if model.__module__.startswith("autoglm_edge_protocol")}
    assert set(generate_docs.DOCUMENTS) == protocol


def test_check_finds_what_is_missing_changed_or_left_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--docs", str(tmp_path)]
    assert generate_docs.main([*arguments, "--check"]) == 1
    assert generate_docs.main(arguments) == 0
    assert generate_docs.main([*arguments, "--check"]) == 0
    capsys.readouterr()

    (tmp_path / "schemas/presence.json").write_text("{}")
    (tmp_path / "schemas/gone.json").write_text("{}")
    assert generate_docs.main([*arguments, "--check"]) == 1
    assert capsys.readouterr().out == "stale: schemas/gone.json\nstale: schemas/presence.json\n"
    assert generate_docs.main(arguments) == 0
    assert generate_docs.stale(tmp_path) == []


def test_schemas_state_the_limits() -> None:
    schema = json.loads(generate_docs.json_schema(Manifest))
    assert schema["$schema"].startswith("https://json-schema.org/draft/2020-12")
    assert schema["properties"]["name"]["pattern"] == "^[a-z0-9][a-z0-9_-]{0,63}$"
