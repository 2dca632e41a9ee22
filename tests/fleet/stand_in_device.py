"""A device made of nothing but the protocol: it fetches what it is told to run, verifies it, and reports.

It keeps its files in memory and has no runtime; on the wire it behaves as a device does. With the root of the fleet it
checks who has signed what it is told; without one it takes documents as they are.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TypeVar

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, Root

from autoglm_edge_fleet.trust.roots import director_of
from autoglm_edge_protocol.commands import Answer, Command, Outcome
from autoglm_edge_protocol.deployment import (
    DeploymentReport,
    DesiredState,
    DeviceFacts,
    Installed,
    Presence,
    Reason,
    ReportedState,
    TrustReport,
)
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.histogram import HistogramRecorder
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import Manifest
from autoglm_edge_protocol.mqtt import BrokerAddress, Link, Message, Will
from autoglm_edge_protocol.signed import MetadataFile, SignedMessage, open_signed
from autoglm_edge_protocol.telemetry import InferenceWindow, SystemSample, TelemetryBatch
from autoglm_edge_protocol.topics import Channel, Topic, device_filters, parse_topic
from autoglm_edge_protocol.transfer import FetchRefusal, FetchRequest, to_ranges

FACTS = DeviceFacts(
    agent_version="0.1.0", board="stand-in", architecture="x86_64", cores=2, memory_bytes=1 << 30, runtimes={}
)


S = TypeVar("S", DesiredState, Command)


class Refused(Exception):
    pass


class StandInDevice:
    def __init__(
        self, url: str, fleet: str, name: str, block_bytes: int = LIMITS.block_bytes, root: bytes | None = None
    ) -> None:
        self.fleet, self.name = fleet, name
        self.root = root
        self.trust: TrustReport | None = None
        self.catalogue: dict[str, MetadataFile] = {}
        self.block_bytes = block_bytes
        self.session, self.sequence = 0, 0
        self.files: dict[str, bytes] = {}
        self.current: Installed | None = None
        self.deployment: DeploymentReport | None = None
        self.generations: list[int] = []
        self.commands: list[Command] = []
        self.refusals: list[FetchRefusal] = []
        self.received_blocks = 0
        self._blocks: dict[str, dict[int, bytes]] = {}
        self._progress = asyncio.Event()
        self._wanted: asyncio.Queue[DesiredState] = asyncio.Queue()
        self.link = Link(
            BrokerAddress.parse(url),
            f"{fleet}-{name}",
            device_filters(fleet, name),
            self._on_message,
            self._on_connected,
            self._will,
        )
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> StandInDevice:
        await self.link.start()
        await self.link.wait_connected(20)
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, tb: TracebackType | None) -> None:
        assert self._worker is not None
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        await self.link.stop()

    def _will(self) -> Will:
        self.session += 1
        self.sequence = 0
        return Will(self.topic(Channel.PRESENCE), self._presence(False).to_bytes())

    def _presence(self, online: bool) -> Presence:
        return Presence(device=self.name, session=self.session, online=online)

    def topic(self, channel: Channel) -> str:
        return str(Topic(self.fleet, self.name, channel))

    async def say(self, channel: Channel, payload: bytes, retain: bool = False) -> None:
        await self.link.publish(self.topic(channel), payload, retain=retain)

    async def _on_connected(self) -> None:
        await self.say(Channel.PRESENCE, self._presence(True).to_bytes(), retain=True)
        await self.report()

    async def leave(self) -> None:
        await self.say(Channel.PRESENCE, self._presence(False).to_bytes(), retain=True)

    async def report(self) -> None:
        self.sequence += 1
        state = ReportedState(
            device=self.name,
            session=self.session,
            sequence=self.sequence,
            at=0,
            facts=FACTS,
            deployment=self.deployment,
            current=self.current,
            serving=self.current is not None,
            trust=self.trust,
        )
        await self.say(Channel.REPORTED, state.to_bytes(), retain=True)

    async def send_telemetry(self, sequence: int, latencies_us: list[float], errors: int = 0) -> None:
        recorder = HistogramRecorder()
        for latency in latencies_us:
            recorder.record(latency)
        window = InferenceWindow(
            bundle="tiny@1.0.0",
            variant="fp32",
            started_at=0,
            duration_s=1,
            requests=len(latencies_us),
            errors=errors,
            latency=recorder.take(),
        )
        sample = SystemSample(at=0, cpu_percent=12.5, memory_used_bytes=10**8, temperature_c=48.0)
        batch = TelemetryBatch(
            device=self.name, boot_id="boot", sequence=sequence, samples=(sample,), inference=(window,)
        )
        await self.say(Channel.TELEMETRY, batch.to_bytes())

    async def _on_message(self, message: Message) -> None:
        topic = parse_topic(message.topic)
        match topic.channel:
            case Channel.BLOCK:
                self.received_blocks += 1
                self._blocks.setdefault(topic.sha256, {})[topic.offset] = message.payload
                self._progress.set()
            case Channel.DESIRED:
                self._wanted.put_nowait(self._open(DesiredState, message.payload))
            case Channel.REFUSAL:
                self.refusals.append(parse(FetchRefusal, message.payload))
                self._progress.set()
            case Channel.COMMAND:
                await self._answer(self._open(Command, message.payload))
            case other:
                raise AssertionError(other)

    def _open(self, model: type[S], payload: bytes) -> S:
        if self.root is None:
            return parse(model, payload)
        message = parse(SignedMessage, payload)
        self.catalogue = message.catalogue
        root = Metadata[Root].from_bytes(self.root).signed

        def verify(keyid: str, signature: bytes, data: bytes) -> bool:
            try:
                root.keys[keyid].verify_signature(Signature(keyid, signature.hex()), data)
            except UnverifiedSignatureError:
                return False
            return True

        document = open_signed(model, message, director_of(root), verify)
        assert (document.fleet, document.device) == (self.fleet, self.name)
        return document

    async def _answer(self, command: Command) -> None:
        self.commands.append(command)
        known = command.name == "ping"
        answer = Answer(
            device=self.name,
            command_id=command.command_id,
            outcome=Outcome.SUCCEEDED if known else Outcome.UNKNOWN,
            result={"echo": command.arguments.get("text", "")} if known else {},
        )
        # Not awaited: the handler must return before the broker's acknowledgement can be taken in.
        self._answering = asyncio.create_task(self.say(Channel.ANSWER, answer.to_bytes()))

    async def _work(self) -> None:
        done = 0
        while True:
            desired = await self._wanted.get()
            self.generations.append(desired.generation)
            if desired.generation > done:
                await self._install(desired)
                done = desired.generation

    async def _install(self, desired: DesiredState) -> None:
        reference = desired.bundle
        assert reference is not None
        self.deployment = DeploymentReport(generation=desired.generation, bundle=reference, phase="fetching")
        await self.report()
        try:
            data = await self.fetch(reference.manifest_sha256, reference.manifest_size_bytes)
            manifest = parse(Manifest, data, LIMITS.manifest_bytes)
            variant = manifest.variant(desired.variant) if desired.variant else manifest.variants[0]
            assert variant is not None
            for entry in manifest.device_files(variant):
                await self.fetch(entry.sha256, entry.size_bytes)
        except Refused as error:
            reason = Reason(code="not-found", message=str(error))
            self.deployment = self.deployment.model_copy(update={"phase": "failed", "reason": reason})
        else:
            self.current = Installed(bundle=reference, variant=variant.id)
            self.deployment = self.deployment.model_copy(update={"phase": "confirmed"})
        await self.report()

    async def fetch(self, sha256: str, size_bytes: int) -> bytes:
        """Return a file, asking again for what does not come. Raises Refused."""
        got = self._blocks.setdefault(sha256, {})
        refused = len(self.refusals)
        count = -(-size_bytes // self.block_bytes)
        while missing := [n for n in range(count) if n * self.block_bytes not in got][: LIMITS.request_blocks]:
            await self.ask(sha256, missing)
            while not all(n * self.block_bytes in got for n in missing):
                if len(self.refusals) > refused:
                    raise Refused(self.refusals[-1].reason.message)
                self._progress.clear()
                try:
                    async with asyncio.timeout(2):  # `wait_for` of Python 3.11 may lose a cancellation
                        await self._progress.wait()
                except TimeoutError:
                    break
        data = b"".join(got[offset] for offset in sorted(got))
        assert len(data) == size_bytes and sha256_of(data) == sha256, "the wrong bytes came"
        self.files[sha256] = data
        return data

    async def ask(self, sha256: str, blocks: list[int], request_id: int = 1) -> None:
        request = FetchRequest(
            request_id=request_id, sha256=sha256, block_bytes=self.block_bytes, ranges=to_ranges(blocks)
        )
        self.link.send_block(self.topic(Channel.FETCH), request.to_bytes())
