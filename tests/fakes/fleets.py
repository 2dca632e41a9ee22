"""A fleet in memory: speaks the protocol over a real broker, publishes bundle directories, and can misbehave on demand.

For tests of the device alone; the real fleet is tested with real devices in tests/e2e.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.fakes.agents import FLEET, wait_until
from tests.fakes.model_bundles import ModelBundle
from tests.fakes.signing import FakeRepository

from autoglm_edge_protocol.commands import Answer, Command
from autoglm_edge_protocol.deployment import BundleReference, DesiredState, Presence, Reason, ReportedState
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.manifest import MANIFEST_PATH, Manifest
from autoglm_edge_protocol.mqtt import BrokerAddress, Link, Message
from autoglm_edge_protocol.probation import ProbationTerms
from autoglm_edge_protocol.telemetry import TelemetryBatch
from autoglm_edge_protocol.topics import Channel, Topic, fleet_filters, parse_topic
from autoglm_edge_protocol.transfer import FetchRefusal, FetchRequest

T = TypeVar("T")
Spoil = Callable[[str, int, bytes], list[tuple[int, bytes]]]
"""(sha256, offset, bytes) -> what is really sent, as (offset, bytes)."""


class FakeFleet:
    """Runs in a thread of its own; every method may be called from the test."""

    def __init__(self, broker_url: str, name: str = FLEET) -> None:
        self.name = name
        self.repository = FakeRepository()
        self._signing = threading.Lock()
        """Held from a change of the repository to the message that names it: tests deploy from several threads."""
        self.served: dict[str, bytes] = {}
        """Metadata that devices may fetch, by its digest."""
        self._objects: dict[str, Path] = {}
        self._generations: dict[str, int] = {}
        self.reports: dict[str, ReportedState] = {}
        self.history: list[ReportedState] = []
        self.block_pause_s = 0.0
        self.hidden: set[str] = set()
        self.presences: list[Presence] = []
        self.answers: list[Answer] = []
        self.telemetry: list[TelemetryBatch] = []
        self.requests: list[FetchRequest] = []
        self.sent_bytes = 0
        self.spoil: Spoil | None = None
        """What becomes of the blocks of bundles."""
        self.spoil_metadata: Spoil | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._link = self._do(self._open(broker_url))

    async def _open(self, broker_url: str) -> Link:
        link = Link(
            BrokerAddress.parse(broker_url), f"fake-fleet-{uuid.uuid4().hex[:8]}", fleet_filters(self.name), self._take
        )
        await link.start()
        await link.wait_connected(20)
        return link

    def __enter__(self) -> FakeFleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._link.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    # what an operator does ----

    def publish(self, bundle: ModelBundle) -> BundleReference:
        reference = bundle.reference
        # Not through `parse`: a fleet may publish what this release does not understand.
        manifest = Manifest.model_validate_json((bundle.directory / MANIFEST_PATH).read_bytes())
        self._objects[reference.manifest_sha256] = bundle.directory / MANIFEST_PATH
        self._objects |= {entry.sha256: bundle.directory / entry.path for entry in manifest.files}
        return reference

    def offer(self, sha256: str, path: Path) -> None:
        """Send this file when that digest is asked for, whatever its real digest is."""
        self._objects[sha256] = path

    def deploy(
        self,
        reference: BundleReference | None,
        device: str = "dev-1",
        variant: str | None = None,
        probation: ProbationTerms | None = None,
        downgrade_reason: str | None = "the test goes back and forth",
    ) -> int:
        """Desire a bundle as the next generation; older versions than those that were confirmed only with a reason."""
        generation = self._generations.get(device, 0) + 1
        self._generations[device] = generation
        desired = DesiredState(
            fleet=self.name,
            device=device,
            generation=generation,
            bundle=reference,
            variant=variant,
            probation=probation,
            allow_downgrade=downgrade_reason is not None,
            downgrade_reason=downgrade_reason,
        )
        self.desire(desired)
        return generation

    def desire(self, desired: DesiredState) -> None:
        """Sign a desired state, and the bundle that it names, and send it to its device."""
        with self._signing:
            if desired.bundle is not None:
                self.repository.add(desired.bundle)
            message = self.signed(desired)
        self.send(Topic(self.name, desired.device, Channel.DESIRED), message, retain=True)

    def signed(self, document: DesiredState | Command, **more: Any) -> bytes:
        """Return the director's message; what its catalogue names can be fetched from now on."""
        self.served |= {sha256_of(data): data for data in self.repository.files.values()}
        return self.repository.message(document, self.name, **more)

    def command(self, name: str, device: str = "dev-1", command_id: str | None = None, **more: Any) -> Command:
        command = Command(command_id=command_id or uuid.uuid4().hex, device=device, name=name, **more)
        with self._signing:
            message = self.signed(command)
        self.send(Topic(self.name, device, Channel.COMMAND), message)
        return command

    def send(self, topic: Topic, data: bytes, retain: bool = False) -> None:
        self._do(self._link.publish(str(topic), data, retain=retain))

    # what it sees ----

    def wait_phase(self, generation: int, *phases: str, device: str = "dev-1", timeout_s: float = 60) -> ReportedState:
        """Wait until the device reports this generation in one of the phases."""

        def reached() -> ReportedState | None:
            report = self.reports.get(device)
            deployment = report.deployment if report else None
            if deployment and deployment.generation == generation and deployment.phase in phases:
                return report
            return None

        result = wait_until(
            reached, timeout_s, lambda: f"generation {generation} never {phases}; last {self.reports.get(device)}"
        )
        assert isinstance(result, ReportedState)
        return result

    def wait_answer(self, command: Command, timeout_s: float = 30) -> Answer:
        found = wait_until(
            lambda: next((a for a in self.answers if a.command_id == command.command_id), None), timeout_s, "no answer"
        )
        assert isinstance(found, Answer)
        return found

    # the wire ----

    async def _take(self, message: Message) -> None:
        topic = parse_topic(message.topic)
        if topic.channel is Channel.REPORTED:
            self.reports[topic.device] = parse(ReportedState, message.payload)
            self.history.append(self.reports[topic.device])
        elif topic.channel is Channel.PRESENCE:
            self.presences.append(parse(Presence, message.payload))
        elif topic.channel is Channel.ANSWER:
            self.answers.append(parse(Answer, message.payload))
        elif topic.channel is Channel.TELEMETRY:
            self.telemetry.append(parse(TelemetryBatch, message.payload))
        elif topic.channel is Channel.FETCH:
            request = parse(FetchRequest, message.payload)
            self.requests.append(request)
            await self._serve(topic.device, request)

    async def _serve(self, device: str, request: FetchRequest) -> None:
        path, data = self._objects.get(request.sha256), self.served.get(request.sha256)
        spoil = self.spoil if data is None else self.spoil_metadata
        if (path is None and data is None) or request.sha256 in self.hidden:
            reason = Reason(code="not-found", message="no published bundle has this file")
            refusal = FetchRefusal(request_id=request.request_id, sha256=request.sha256, reason=reason)
            await self._link.publish(str(Topic(self.name, device, Channel.REFUSAL)), refusal.to_bytes())
            return
        if data is None:
            assert path is not None
            data = path.read_bytes()
        for block in request.blocks():
            offset = block * request.block_bytes
            piece = data[offset : offset + request.block_bytes]
            if self.block_pause_s:
                await asyncio.sleep(self.block_pause_s)
            sent = [(offset, piece)] if spoil is None else spoil(request.sha256, offset, piece)
            for where, what in sent:
                self.sent_bytes += len(what)
                self._link.send_block(str(Topic(self.name, device, Channel.BLOCK, request.sha256, where)), what)
