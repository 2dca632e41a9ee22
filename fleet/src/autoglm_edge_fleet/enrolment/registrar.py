"""Answers requests for certificates. What is decided is committed before the answer exists: none is given twice.

Works on the database's thread: bytes in, bytes out.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from autoglm_edge_fleet.audit import note
from autoglm_edge_fleet.broker_access.folder import BrokerFolder
from autoglm_edge_fleet.config import FleetConfig
from autoglm_edge_fleet.database import Database
from autoglm_edge_fleet.devices import insert
from autoglm_edge_fleet.enrolment.authority import Authority
from autoglm_edge_fleet.enrolment.certificates import (
    DeviceCertificate,
    newest_certificate,
    revoke_certificates,
    store_certificate,
)
from autoglm_edge_fleet.enrolment.claims import (
    Asked,
    Record,
    approved_claims,
    describe_board,
    find_record,
    store_contest,
    store_request,
)
from autoglm_edge_fleet.enrolment.decisions import UNKNOWN, Refuse, Step, decide, free_name
from autoglm_edge_fleet.enrolment.signing_requests import BadRequest, SignedKey, read_request
from autoglm_edge_fleet.errors import BadSettings, RefusedReport
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_protocol.claims import open_proven, prove
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.enrolment import (
    CertificateAnswer,
    CertificateRequest,
    EnrolmentAnswer,
    EnrolmentRequest,
    Grant,
    RenewalAnswer,
    RenewalRequest,
)
from autoglm_edge_protocol.errors import UnprovenMessage

Say = Callable[[str], None]

RENEWED_FROM = 0.25
"""A certificate is renewed once this share of its life is over; before that, the same one is given again."""


@dataclass(frozen=True)
class Reply:
    """An answer, and under which name its receiver waits for it."""

    to: str
    payload: bytes


class Registrar:
    """Takes requests in for the fleet in `directory`. `say` takes a line about what its owner should know."""

    def __init__(self, directory: Path, config: FleetConfig, passphrases: Passphrases, say: Say) -> None:
        self._directory = directory
        self._config = config
        self._authority = Authority(directory, config.name, passphrases)
        self._say = say

    # boards ----

    def enrol(self, database: Database, request_id: str, payload: bytes) -> Reply:
        """Answer a request with a claim.

        Raises MalformedDocument, UnsupportedSchema, RefusedReport: it is none. NoAuthority, KeyUnavailable,
        WrongPassphrase: nobody can be answered now. BadSettings, StorageError.
        """
        asking = parse(EnrolmentRequest, payload)
        record = find_record(database.read, asking.claim_id)
        if record is None:
            self._say(f"a board asks with the claim {asking.claim_id}, which was never made here")
            return Reply(request_id, EnrolmentAnswer(refusal=UNKNOWN).to_bytes())
        try:
            request = open_proven(CertificateRequest, asking.request, record.secret)
        except UnprovenMessage as error:
            self._say(f"claim {asking.claim_id}: {error}")
            reason = Reason(code="claim-unproven", message=str(error))
            return Reply(request_id, EnrolmentAnswer(refusal=reason).to_bytes())
        if request.request_id != request_id:
            raise RefusedReport("asks under the name of another request")
        text = asking.request.unproven_payload.decode()
        try:
            key = read_request(request.csr)
        except BadRequest as error:
            return self._refused(record, Asked(request, text, ""), Reason(code="bad-request", message=str(error)))
        return self._decide(database, record, Asked(request, text, key.sha256), key)

    def approved(self, database: Database) -> tuple[Reply, ...]:
        """Return the answers to boards that have been approved since. Raises as `enrol`."""
        replies = []
        for claim_id in approved_claims(database):
            record = find_record(database.read, claim_id)
            if record is not None and record.asked is not None:
                key = read_request(record.asked.request.csr)
                replies.append(self._decide(database, record, record.asked, key))
        return tuple(replies)

    def _decide(self, database: Database, record: Record, asked: Asked, key: SignedKey) -> Reply:
        self._authority.open()
        with database.transaction() as connection:
            # Once more, now that nobody else can write.
            record = (
                find_record(lambda sql, values: connection.execute(sql, values).fetchall(), record.claim_id) or record
            )
            step = decide(record.known, asked.key_sha256, time.time())
            if isinstance(step, Refuse):
                if step.is_contested and store_contest(connection, record.claim_id, describe_board(asked.request)):
                    self._say(
                        f"claim {record.claim_id} of {record.device} is used by a second board,"
                        f" {describe_board(asked.request)}: refused"
                    )
                return self._refused(record, asked, step.reason)
            device = self._name(connection, record, asked)
            store_request(connection, record.claim_id, asked, device)
            if step is Step.HOLD:
                if record.asked is None:
                    self._say(f"{device}: waits to be approved ({describe_board(asked.request)})")
                return self._reply(record, asked, status="pending")
            if step is Step.ISSUE:
                self._issue(connection, record, asked, key, device)
            certificate = newest_certificate(connection, device, asked.key_sha256)
        assert certificate is not None
        if step is Step.ISSUE:
            self._tell_broker(database)
            self._say(f"{device}: enrolled with claim {record.claim_id} ({describe_board(asked.request)})")
        return self._reply(
            record,
            asked,
            status="issued",
            device=device,
            grant=_grant(certificate),
            authority=self._authority.pem(),
            broker_url=self._config.url_for_devices,
            broker_ca=self._config.broker_authority(self._directory),
        )

    def _tell_broker(self, database: Database) -> None:
        """Let the broker know of a device before the device knows of itself."""
        folder = BrokerFolder(self._directory, self._config.name, database, self._authority)
        try:
            problem = folder.reload() if folder.refresh() else None
        except (OSError, BadSettings) as error:
            problem = f"the broker's files were not written: {error}"
        if problem is not None:
            self._say(problem)

    def _name(self, connection: sqlite3.Connection, record: Record, asked: Asked) -> str:
        if record.device is not None:
            return record.device
        rows = connection.execute("SELECT name FROM devices UNION SELECT device FROM claims WHERE device IS NOT NULL")
        return free_name(asked.request.name, frozenset(row[0] for row in rows), record.claim_id[:6])

    def _issue(self, connection: sqlite3.Connection, record: Record, asked: Asked, key: SignedKey, device: str) -> None:
        now = time.time()
        insert(connection, device)
        replaced = revoke_certificates(connection, device, f"replaced with claim {record.claim_id}")
        if replaced:
            connection.execute("DELETE FROM boards WHERE device = ?", (device,))
        made = self._authority.issue_device(device, key, now)
        store_certificate(connection, device, made, record.claim_id, asked.request.board.board_id)
        connection.execute("UPDATE claims SET answered_at = ? WHERE claim_id = ?", (now, record.claim_id))
        connection.execute(
            "UPDATE devices SET tags = ? WHERE name = ?", (json.dumps(dict(record.tags), sort_keys=True), device)
        )
        note(
            connection,
            "enrol device",
            device,
            claim=record.claim_id,
            serial=made.serial,
            board=describe_board(asked.request),
            replaced=replaced or None,
        )

    def _refused(self, record: Record, asked: Asked, reason: Reason) -> Reply:
        return self._reply(record, asked, status="refused", reason=reason)

    def _reply(self, record: Record, asked: Asked, **values: object) -> Reply:
        answer = CertificateAnswer.model_validate(
            {
                "fleet": self._config.name,
                "request_sha256": sha256_of(asked.payload.encode()),
                "at": time.time(),
                **values,
            }
        )
        return Reply(asked.request.request_id, EnrolmentAnswer(answer=prove(answer, record.secret)).to_bytes())

    # devices ----

    def renew(self, database: Database, device: str, payload: bytes) -> Reply:
        """Answer a device that asks for a new certificate of its key. Raises as `enrol`."""
        asking = parse(RenewalRequest, payload)
        if asking.device != device:
            raise RefusedReport("asks for the certificate of another device")
        try:
            key = read_request(asking.csr)
        except BadRequest as error:
            return _not_renewed(device, "bad-request", str(error))
        self._authority.open()
        with database.transaction() as connection:
            has = newest_certificate(connection, device, key.sha256)
            if has is None:
                self._say(f"{device}: asks to renew a certificate that it does not have, or that is revoked")
                return _not_renewed(device, "not-enrolled", "no certificate of this key is valid; enrol again")
            now = time.time()
            if now >= has.not_before + RENEWED_FROM * (has.not_after - has.not_before):
                made = self._authority.issue_device(device, key, now)
                store_certificate(connection, device, made, None, has.board_id)
                note(connection, "renew certificate", device, serial=made.serial)
                has = replace(has, pem=made.pem, not_before=made.not_before, not_after=made.not_after)
        self._say(f"{device}: certificate valid until {time.strftime('%Y-%m-%d', time.localtime(has.not_after))}")
        return Reply(device, RenewalAnswer(device=device, grant=_grant(has)).to_bytes())


def _grant(certificate: DeviceCertificate) -> Grant:
    return Grant(certificate=certificate.pem, not_before=certificate.not_before, not_after=certificate.not_after)


def _not_renewed(device: str, code: str, message: str) -> Reply:
    return Reply(device, RenewalAnswer(device=device, refusal=Reason(code=code, message=message)).to_bytes())
