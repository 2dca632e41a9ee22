"""The device's side of the wire, at a real broker."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.waiting import until

from autoglm_edge_agent.config import Config
from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.uplink import Uplink
from autoglm_edge_protocol.address import BrokerAddress
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.mqtt import Link, Message
from autoglm_edge_protocol.topics import Channel, Topic, fleet_filters, parse_topic
from autoglm_edge_protocol.transfer import FetchRefusal, FetchRequest

pytestmark = pytest.mark.one_broker

DEVICE = "dev-1"


async def test_a_command_that_waits_for_a_file_hears_that_there_is_none(broker: Any, tmp_path: Path) -> None:
    name = f"fleet-{uuid.uuid4().hex[:12]}"
    settings = {
        "device": {"fleet": name, "name": DEVICE},
        "broker": {"url": broker.url},
        "storage": {"directory": tmp_path},
        "trust": {"insecure": True},
    }
    codes: list[str] = []

    async def has_nothing(message: Message) -> None:
        if parse_topic(message.topic).channel is Channel.FETCH:
            request = parse(FetchRequest, message.payload)
            reason = Reason(code="not-found", message="it was replaced long ago")
            refusal = FetchRefusal(request_id=request.request_id, sha256=request.sha256, reason=reason)
            await fleet.publish(str(Topic(name, DEVICE, Channel.REFUSAL)), refusal.to_bytes())

    async def on_command(_message: bytes) -> None:
        # As a command's signature may have to: by metadata that was replaced while the device was away.
        with pytest.raises(Refusal) as met:
            await fetcher.fetch(ChunkedFile.whole("ab" * 32, 1000))
        codes.append(met.value.reason.code)

    fleet = Link(BrokerAddress.parse(broker.url), f"{name}-fleet", fleet_filters(name), has_nothing)
    uplink = Uplink(Config.model_validate(settings), 1, lambda: None)
    fetcher = Fetcher(Store(tmp_path, Disk()), uplink, lambda _sha256, _bytes: None)
    uplink.fetchers, uplink.on_command = (fetcher,), on_command
    await asyncio.gather(fleet.start(), uplink.start())
    try:
        await fleet.wait_connected(20)
        await until(lambda: uplink.connected, 20)
        await fleet.publish(str(Topic(name, DEVICE, Channel.COMMAND)), b"{}")
        await until(lambda: codes == ["not-found"], 10)
    finally:
        await asyncio.gather(fleet.stop(), uplink.stop())
