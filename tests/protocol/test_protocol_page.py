"""The page about the wire: every example on it is a document, and its figures are the code's."""

from __future__ import annotations

import re

import pytest
from scripts.generate_docs import DOCS, DOCUMENTS

from autoglm_edge_agent.updates.blocks import FOLLOW_PATIENCE_S
from autoglm_edge_agent.updates.following import CREDIT_BLOCKS, CREDIT_S
from autoglm_edge_agent.updates.pace import RETRY_MAX_S, RETRY_S, WINDOW_FLOOR, WINDOW_MAX, WINDOW_MIN
from autoglm_edge_agent.updates.straggling import FAR_BEHIND_BLOCKS, STREAM_WINDOW_BLOCKS
from autoglm_edge_fleet import fan_out
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.mqtt import IN_FLIGHT
from autoglm_edge_protocol.names import EVERYBODY
from autoglm_edge_protocol.topics import TO_DEVICE, TO_FLEET, Channel

PAGE = (DOCS / "protocol.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```json(.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
KINDS = {model.kind: model for model in DOCUMENTS}


@pytest.mark.parametrize(("kind", "text"), BLOCKS, ids=[kind.strip() for kind, _ in BLOCKS])
def test_every_example_is_a_document_of_its_kind(kind: str, text: str) -> None:
    document = parse(KINDS[kind.strip()], text.encode(), LIMITS.control_bytes)
    assert set(re.findall(r'^  "(\w+)"', text, re.MULTILINE)) <= set(type(document).model_fields)


def test_every_kind_has_an_example() -> None:
    assert {kind.strip() for kind, _ in BLOCKS} == set(KINDS)


def test_the_table_of_topics_is_the_codes() -> None:
    rows = re.findall(r"^\| `autoglm/v1/FLEET/DEVICE/(\w+)\S*` \| .* \| (device|fleet)[^|]* \|", PAGE, re.MULTILINE)
    assert {(channel, side) for channel, side in rows} == {
        *((channel.value, "fleet") for channel in TO_DEVICE),
        *((channel.value, "device") for channel in TO_FLEET),
    }
    assert len(rows) == len(Channel)
    assert f".../FLEET/{EVERYBODY}/+/SHA256/+" in PAGE


def test_links_lead_somewhere() -> None:
    assert [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if not (DOCS / link).exists()] == []


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("| 128 KiB |", LIMITS.control_bytes == 128 * 1024),
        ("| `manifest.json` | 1 MiB |", LIMITS.manifest_bytes == 1024**2),
        ("| `chunks.json` | 16 MiB |", LIMITS.chunk_index_bytes == 16 * 1024**2),
        ("| a block | 64 KiB |", LIMITS.block_bytes == 64 * 1024 == 65_536),
        ("| blocks in one fetch request | 64 |", LIMITS.request_blocks == 64),
        ("| a chunk | 16 MiB |", LIMITS.chunk_bytes == 16 * 1024**2),
        ("| 4096, 16 GiB |", (LIMITS.bundle_files, LIMITS.bundle_bytes) == (4096, 16 * 1024**3)),
        ("| the golden set | 64 MiB |", LIMITS.golden_bytes == 64 * 1024**2),
        ("the payload of an envelope, before Base64 | 48 KiB |", LIMITS.signed_payload_bytes == 48 * 1024),
        ("| signatures of an envelope, keys of the director | 16 |", LIMITS.signatures == 16),
        ("| one metadata file | 1 MiB |", LIMITS.metadata_bytes == 1024**2),
        ("| 256, 8 MiB |", (LIMITS.metadata_files, LIMITS.metadata_total_bytes) == (256, 8 * 1024**2)),
        ("| system samples in one telemetry batch | 240 |", LIMITS.telemetry_samples == 240),
        ("at most 16 unacknowledged", IN_FLIGHT == 16),
        ("The agent's is 16 to 64", (WINDOW_MIN, WINDOW_MAX) == (16, 64)),
        ("it is halved, down to 2", WINDOW_FLOOR == 2),
        ("nothing has come for 2 s", RETRY_S == 2),
        ("the time doubles up to 30 s", RETRY_MAX_S == 30),
        ("every 32 blocks of the stream or half second", (CREDIT_BLOCKS, CREDIT_S) == (32, 0.5)),
        ("never more than 64 blocks ahead", fan_out.WINDOW == STREAM_WINDOW_BLOCKS == 64),
        ("more than 96 blocks of the stream", FAR_BEHIND_BLOCKS == 96),
        ("no other for 0.2 s, or 1 s", (fan_out.SETTLE_S, fan_out.GATHER_S) == (0.2, 1.0)),
        ("says nothing for 8 s", fan_out.SILENCE_S == 8),
        ("nothing has come for\n   6 s", FOLLOW_PATIENCE_S == 6),
        ("| the bitmap of a follower, in Base64 | 64 KiB |", LIMITS.bitmap_base64_bytes == 64 * 1024),
    ],
)
def test_figures_are_the_codes(figure: str, value: bool) -> None:
    assert figure in PAGE
    assert value
