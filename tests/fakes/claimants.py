"""A board that holds a claim, without a network: its bytes go to the fleet's registrar and back by hand."""

from __future__ import annotations

import os
from pathlib import Path

from autoglm_edge_agent.enrolment.answers import Meaning, meaning_of
from autoglm_edge_agent.enrolment.key_work import FileKey
from autoglm_edge_fleet.database import DATABASE_FILE, Database
from autoglm_edge_fleet.enrolment.claims import ClaimTerms
from autoglm_edge_fleet.enrolment.registrar import Registrar
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_protocol.claims import Claim, prove
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.enrolment import Board, CertificateRequest, EnrolmentRequest


class Desk:
    """A fleet in a folder, its registrar, and what that has said. To be closed."""

    def __init__(self, directory: Path, passphrase: str | None = None) -> None:
        self.directory = directory
        self.passphrases = Passphrases(passphrase)
        self.fleet = Fleet.init(directory, "home", passphrases=self.passphrases)
        self.fleet.enrolment.found(plain=passphrase is None)
        self.database = Database(directory / DATABASE_FILE)
        self.said: list[str] = []
        self.registrar = Registrar(directory, self.fleet.config, self.passphrases, self.said.append)

    def claim(self, **terms: object) -> Claim:
        values = {"expires_s": 3600.0, "tags": {"site": "berlin"}} | terms
        return self.fleet.enrolment.create_claims(1, ClaimTerms(**values))[0]  # type: ignore[arg-type]

    def answer(self, claimant: Claimant) -> Meaning:
        """Let it ask, and return what the answer means to it."""
        reply = self.registrar.enrol(self.database, claimant.request.request_id, claimant.asks())
        assert reply.to == claimant.request.request_id
        return claimant.hears(reply.payload)

    def certificates(self) -> list[tuple[str, str | None]]:
        """Device and reason of revocation of every certificate that was ever issued."""
        rows = self.database.read("SELECT device, revoked_reason FROM certificates ORDER BY not_before, serial")
        return [(row[0], row[1]) for row in rows]

    def close(self) -> None:
        self.database.close()
        self.fleet.close()


class Claimant:
    """A board with a key of its own."""

    def __init__(self, claim: Claim, folder: Path, name: str = "cam-1", board: str | None = "ab" * 16) -> None:
        self.claim = claim
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.key = FileKey(folder / "device.key", Disk())
        self._name = name
        self._board = board
        self.request = self.new_request()

    def new_request(self, **changes: object) -> CertificateRequest:
        """Make the request that it asks with from now on."""
        values: dict[str, object] = {
            "fleet": self.claim.fleet,
            "request_id": f"enrol-{os.urandom(16).hex()}",
            "csr": self.key.request(),
            "name": self._name,
            "board": Board(board_id=self._board, model="Raspberry Pi 4", architecture="aarch64"),
        }
        self.request = CertificateRequest.model_validate(values | changes)
        return self.request

    def asks(self, secret: str | None = None) -> bytes:
        """The bytes of its request."""
        proven = prove(self.request, secret or self.claim.secret)
        return EnrolmentRequest(claim_id=self.claim.claim_id, request=proven).to_bytes()

    def hears(self, payload: bytes) -> Meaning:
        """What an answer means to it."""
        return meaning_of(payload, self.claim, self.request)
