"""The order in which a message is judged: signature, addressee, time, and only then what needs the network."""

from __future__ import annotations

from autoglm_edge_agent.trust.decision import Distrust, check_command, check_desired, reference_time
from autoglm_edge_agent.trust.director import D, open_envelope
from autoglm_edge_agent.trust.repository import Repository
from autoglm_edge_agent.trust.wire import Question, Verdict
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState


class Judge:
    """One question, and the repository by which it is judged."""

    def __init__(self, question: Question, repository: Repository) -> None:
        self._question = question
        self._repository = repository
        self._refreshed = False
        self._failure: Distrust | None = None

    def verdict(self) -> Verdict:
        """Judge the message."""
        try:
            document = self._desired() if self._question.message == "desired" else self._command()
        except Distrust as distrust:
            return Verdict(refusal=distrust.reason)
        timestamp = self._repository.timestamp()
        expires_at = timestamp.expires.timestamp() if timestamp else 0.0
        return Verdict(document=document.to_bytes().decode(), timestamp_expires_at=expires_at)

    def _desired(self) -> DesiredState:
        question = self._question
        opened = self._opened(DesiredState)
        check_desired(opened, question.fleet, question.device, question.now, question.memory)
        self._refresh()
        self._repository.check_fresh(reference_time(question.now, question.memory, opened.signed_at or 0.0))
        desired = open_envelope(
            DesiredState, question.envelope, self._repository
        )  # the newest root may have other keys
        if desired.bundle is not None:
            self._repository.check_bundle(desired.bundle)
        return desired

    def _command(self) -> Command:
        """Metadata is fetched only where what is here is too old: a command names no bundle."""
        question = self._question
        command = self._opened(Command)
        check_command(command, question.fleet, question.device, question.memory)
        try:
            self._repository.check_fresh(reference_time(question.now, question.memory))
        except Distrust:
            self._refresh()
            return open_envelope(Command, question.envelope, self._repository)
        return command

    def _opened(self, model: type[D]) -> D:
        """Open the envelope. One of a key that is not known here is looked at again with the newest root."""
        try:
            return open_envelope(model, self._question.envelope, self._repository)
        except Distrust:
            if not self._newer_root_offered():
                raise
        try:
            self._refresh()
        except Distrust as failure:
            self._failure = failure  # comes to light below, should the director have signed
        return open_envelope(model, self._question.envelope, self._repository)

    def _newer_root_offered(self) -> bool:
        offered = self._question.offered
        return offered is None or f"{self._repository.root.version + 1}.root.json" in offered

    def _refresh(self) -> None:
        """Bring the metadata up to date, once. Raises Distrust."""
        if self._failure is not None:
            raise self._failure
        if not self._refreshed:
            self._refreshed = True
            self._repository.refresh(reference_time(self._question.now, self._question.memory))
