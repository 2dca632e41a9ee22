"""The gate: every desired state and every command passes through it, or is turned away with a reason.

It asks the verifier's process, keeps what was learned before anything is acted on, and says what it knows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from autoglm_edge_agent.config import DeviceSection
from autoglm_edge_agent.errors import Hindrance, Refusal
from autoglm_edge_agent.released import RELEASED_AT
from autoglm_edge_agent.trust.decision import Distrust, check_command, check_desired, reference_time
from autoglm_edge_agent.trust.memory import Memory
from autoglm_edge_agent.trust.process import verify
from autoglm_edge_agent.trust.sources import MetadataSource
from autoglm_edge_agent.trust.vault import Vault
from autoglm_edge_agent.trust.wire import MessageKind, Question, Verdict
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import BundleReference, DesiredState, Reason, TrustReport
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.signed import MetadataFile, SignedMessage

log = logging.getLogger(__name__)

M = TypeVar("M", DesiredState, Command)

Sources = Callable[[Mapping[str, MetadataFile]], Sequence[MetadataSource]]
"""The catalogue of a message -> where metadata may come from, the nearest first."""

_OF_THE_SOURCE = {
    "metadata-expired",
    "metadata-missing",
    "metadata-mismatch",
    "metadata-too-large",
    "untrusted-metadata",
    "bad-metadata",
    "rollback-attack",
    "unknown-target",
}
"""Refusals that are about a repository, so that another copy of it may do better."""

_KINDS: dict[type[DesiredState] | type[Command], MessageKind] = {DesiredState: "desired", Command: "command"}


class Gate:
    """Lets in what the director has signed for this device.

    Args:
        root: the root metadata that the device was given.
        clock: returns the Unix time in seconds, as far as the board knows it.
        on_change: called when there is something new to report.
    """

    def __init__(
        self,
        device: DeviceSection,
        vault: Vault,
        root: bytes,
        sources: Sources,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._device = device
        self._vault = vault
        self._root = root
        self._sources = sources
        self._on_change = on_change
        self._clock = clock
        self._refusal: Reason | None = None
        self._seen = (-1, 0, 0)
        self._keeping = asyncio.Lock()

    # what it lets in ----

    async def desired(self, message: bytes) -> DesiredState:
        """Return the desired state of a message. Raises Refusal, Hindrance, OSError."""
        desired, verdict = await self._let_in(DesiredState, message)
        self._check_again(desired)
        memory = self._vault.memory.with_desired(desired, sha256_of(message), _latest(verdict))
        if memory.override is not None and memory.override != self._vault.memory.override:
            log.warning("going back to an older version by the director's permission: %s", memory.override.message)
        self._vault.remember(memory)
        self._refused(None)
        return desired

    async def command(self, message: bytes) -> Command:
        """Return the command of a message; it may be too late for it. Raises Refusal, Hindrance, OSError."""
        command, verdict = await self._let_in(Command, message)
        self._check_again(command)
        self._vault.remember(self._vault.memory.with_command(command, _latest(verdict)))
        return command

    def was_accepted(self, message: bytes, generation: int) -> bool:
        """Whether these very bytes were the last to be let in, and are of this generation."""
        memory = self._vault.memory
        return memory.generation == generation and memory.accepted_sha256 == sha256_of(message)

    async def _let_in(self, model: type[M], message: bytes) -> tuple[M, Verdict]:
        try:
            return await self._judge(model, message)
        except Refusal as refusal:
            log.warning("a %s is refused (%s): %s", model.kind, refusal.reason.code, refusal)
            self._refused(refusal.reason)
            raise

    def _check_again(self, document: DesiredState | Command) -> None:
        """Raise Refusal for what was let in by a memory that has grown while the verifier was at work."""
        fleet, device, memory = self._device.fleet, self._device.name, self._memory()
        try:
            if isinstance(document, DesiredState):
                check_desired(document, fleet, device, self._clock(), memory)
            else:
                check_command(document, fleet, device, memory)
        except Distrust as distrust:
            log.warning("a %s is refused (%s): %s", document.kind, distrust.reason.code, distrust)
            self._refused(distrust.reason)
            raise Refusal(distrust.reason.code, distrust.reason.message) from None

    async def _judge(self, model: type[M], message: bytes) -> tuple[M, Verdict]:
        if self._vault.sealed is not None:
            raise Refusal(self._vault.sealed.code, self._vault.sealed.message)
        try:
            signed = parse(SignedMessage, message)
        except ProtocolError as error:
            raise Refusal(*_what_is_wrong(message, error)) from None
        verdict = await self._ask(model, signed)
        if verdict.document is None:
            reason = verdict.refusal or Reason(code="verifier-failed", message="no verdict")
            raise Refusal(reason.code, reason.message)
        return parse(model, verdict.document.encode(), LIMITS.signed_payload_bytes), verdict

    async def _ask(self, model: type[M], signed: SignedMessage) -> Verdict:
        """Ask with one source after the other until the message is accepted; the last one's word counts."""
        hindrance: Hindrance | None = None
        verdict: Verdict | None = None
        for source in self._sources(signed.catalogue):
            question = self._question(model, signed, source)
            try:
                verdict = await self._ask_with(question, source)
            except Hindrance as error:
                hindrance = error
                continue
            if verdict.document is not None or not _may_differ_elsewhere(verdict):
                return verdict
        if verdict is None:
            raise hindrance or Hindrance("no-source", "there is nowhere to read metadata from")
        return verdict

    def _question(self, model: type[M], signed: SignedMessage, source: MetadataSource) -> Question:
        self._vault.provision(self._root)
        return Question(
            message=_KINDS[model],
            envelope=signed.envelope,
            offered=source.offered,
            fleet=self._device.fleet,
            device=self._device.name,
            now=self._clock(),
            memory=self._memory(),
        )

    async def _ask_with(self, question: Question, source: MetadataSource) -> Verdict:
        while True:
            revision = self._vault.revision
            with self._vault.working_copy() as directory:
                verdict = await verify(question, directory, source.read)
                if _is_bad_root(verdict) and self._vault.begin_anew(self._root):
                    continue
                async with self._keeping:
                    if self._vault.revision == revision:  # else another message has brought newer metadata meanwhile
                        self._vault.take(directory)
                        return verdict

    # what it remembers and says ----

    def note_confirmed(self, bundle: BundleReference) -> None:
        """Raise the floor below which this model's versions are not taken. Never raises."""
        try:
            self._vault.remember(self._vault.memory.with_confirmed(bundle))
        except OSError as error:
            log.warning("it could not be kept that %s was confirmed: %s", bundle.id, error)

    def note_generation(self, generation: int) -> None:
        """Raise the floor of generations to that which the update has begun with, should it be higher."""
        memory = self._vault.memory
        if generation > memory.generation:
            self._vault.memory = memory.model_copy(update={"generation": generation, "signed_at": 0.0})

    def time(self) -> float:
        """Return the Unix time in seconds by which expiries are judged."""
        return reference_time(self._clock(), self._memory())

    def report(self) -> TrustReport:
        """Return what the fleet is told."""
        if self._seen[0] != self._vault.revision:
            self._seen = (self._vault.revision, self._vault.version("root"), self._vault.version("timestamp"))
        return TrustReport(
            mode="signed",
            root_version=self._seen[1],
            timestamp_version=self._seen[2],
            time_floor=self._memory().time_floor,
            refusal=self._refusal,
            override=self._vault.memory.override,
        )

    def _memory(self) -> Memory:
        memory = self._vault.memory
        return memory.model_copy(update={"time_floor": max(RELEASED_AT, memory.time_floor)})

    def _refused(self, reason: Reason | None) -> None:
        self._refusal = reason
        self._on_change()


def _latest(verdict: Verdict) -> float:
    """Return up to when a signed time is believed: no later than the timestamp, which is renewed day by day, says.

    So a director whose clock is ahead cannot make a device take everything for expired for ever.
    """
    return verdict.timestamp_expires_at or 0.0


def _is_bad_root(verdict: Verdict) -> bool:
    return verdict.refusal is not None and verdict.refusal.code == "bad-root"


def _may_differ_elsewhere(verdict: Verdict) -> bool:
    return verdict.refusal is not None and verdict.refusal.code in _OF_THE_SOURCE


def _what_is_wrong(message: bytes, error: ProtocolError) -> tuple[str, str]:
    if len(message) <= LIMITS.control_bytes and b'"envelope"' not in message:
        return "untrusted-signature", "the message is not signed, and this device takes signed ones only"
    return "malformed-message", str(error)
