"""The AsyncAPI document: whole in itself, and saying of every channel what the code and docs/protocol.md say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scripts.asyncapi_document import CARRIES, EXAMPLE_KEY
from scripts.generate_docs import DOCS, DOCUMENTS

from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.signed import Director, SignedMessage, open_signed
from autoglm_edge_protocol.topics import Channel, board_filters, device_filters, fleet_filters, parse_topic

S = TypeVar("S", DesiredState, Command)

WHOLE: dict[str, Any] = json.loads((DOCS / "asyncapi.json").read_bytes())
PAGE = (DOCS / "protocol.md").read_text(encoding="utf-8")
OPERATIONS = {operation["channel"]["$ref"].rpartition("/")[2]: operation for operation in WHOLE["operations"].values()}


def _at(pointer: str) -> Any:
    found: Any = WHOLE
    for name in pointer.removeprefix("#/").split("/"):
        found = found[name]
    return found


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _parts(each)


def _message(channel: Channel) -> dict[str, Any]:
    message: dict[str, Any] = _at(WHOLE["channels"][channel.value]["messages"][channel.value]["$ref"])
    return message


def test_every_reference_leads_somewhere() -> None:
    references = [part["$ref"] for part in _parts(WHOLE) if isinstance(part.get("$ref"), str)]
    assert len(references) > 50
    assert all(reference.startswith("#/") for reference in references)
    assert all(isinstance(_at(reference), dict) for reference in references)


def test_every_channel_is_there_with_the_qos_and_retention_of_the_page() -> None:
    rows = re.findall(
        r"^\| `(autoglm/v1/FLEET/DEVICE/\S+)` \| .* \| (.*) \| ([01]) \| (yes|no) \|$", PAGE, re.MULTILINE
    )
    assert len(rows) == len(Channel) == len(WHOLE["channels"]) == len(OPERATIONS)
    for topic, sender, qos, retained in rows:
        name = topic.split("/")[4]
        assert WHOLE["channels"][name]["address"] == re.sub(r"\b(FLEET|DEVICE|SHA256|OFFSET)\b", _in_braces, topic)
        operation = OPERATIONS[name]
        assert operation["action"] == ("receive" if sender == "fleet" else "send")
        binding = operation["bindings"]["mqtt"]
        assert (binding["qos"], binding["retain"]) == (int(qos), retained == "yes")


def _in_braces(match: re.Match[str]) -> str:
    return "{" + match[0].lower() + "}"


def test_addresses_are_topics_that_are_subscribed_to() -> None:
    values = {"fleet": "home", "device": "porch", "sha256": "ab" * 32, "offset": "65536"}
    filters = {
        **device_filters("home", "porch", enrolled=True),
        **board_filters("home", "porch"),
        **fleet_filters("home"),
    }
    for channel in Channel:
        described = WHOLE["channels"][channel.value]
        assert set(described["parameters"]) == set(re.findall(r"{(\w+)}", described["address"]))
        topic = described["address"].format(**values)
        assert parse_topic(topic).channel is channel
        granted = [qos for each, qos in filters.items() if re.fullmatch(each.replace("+", "[^/]+"), topic)]
        assert granted == [OPERATIONS[channel.value]["bindings"]["mqtt"]["qos"]]


def test_every_document_has_its_schema() -> None:
    schemas = WHOLE["components"]["schemas"]
    assert {model.__name__ for model in DOCUMENTS} <= set(schemas)
    for model in DOCUMENTS:
        assert set(schemas[model.__name__]["properties"]) == set(model.model_fields)
    newer_than_draft_7 = {"$defs", "prefixItems", "dependentRequired", "unevaluatedProperties"}
    assert [part for part in _parts(schemas) if newer_than_draft_7 & set(part)] == []


@pytest.mark.parametrize("channel", [channel for channel, model in CARRIES.items() if model is not None])
def test_every_example_is_a_document_of_its_channel(channel: Channel) -> None:
    model = CARRIES[channel]
    assert model is not None
    examples = [json.dumps(example["payload"]).encode() for example in _message(channel)["examples"]]
    assert examples
    for example in examples:
        if model is DesiredState:
            assert _opened(DesiredState, example).device == "porch"
        elif model is Command:
            assert _opened(Command, example).device == "porch"
        else:
            parse(model, example)


def _opened(model: type[S], data: bytes) -> S:
    """Open an example as a device would whose director has the key of the examples."""
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(EXAMPLE_KEY)).public_key()
    message = parse(SignedMessage, data)
    keyid = message.envelope.signatures[0].keyid

    def verify(_keyid: str, signature: bytes, signed: bytes) -> bool:
        key.verify(signature, signed)
        return True

    return open_signed(model, message, Director(keyids=(keyid,), threshold=1), verify)


def test_signed_messages_name_their_type_and_what_is_in_them() -> None:
    for channel, model in ((Channel.DESIRED, DesiredState), (Channel.COMMAND, Command)):
        message = _message(channel)
        assert message["x-signed-document"]["allOf"][0] == {"$ref": f"#/components/schemas/{model.__name__}"}
        fixed = message["payload"]["allOf"][1]["properties"]["envelope"]["properties"]["payloadType"]["const"]
        assert fixed == message["examples"][0]["payload"]["envelope"]["payloadType"]


def test_a_block_is_bytes() -> None:
    message = _message(Channel.BLOCK)
    assert message["contentType"] == "application/octet-stream"
    assert message["payload"]["maxLength"] == LIMITS.block_bytes


def test_the_will_is_an_offline_presence() -> None:
    for server in WHOLE["servers"].values():
        will = server["bindings"]["mqtt"]["lastWill"]
        assert will["topic"] == WHOLE["channels"]["presence"]["address"]
        assert json.loads(will["message"])["online"] is False
        assert f"Keep-alive {server['bindings']['mqtt']['keepAlive']} s" in PAGE
