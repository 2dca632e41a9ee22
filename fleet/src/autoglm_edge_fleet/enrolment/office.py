"""What the owner does about enrolment: makes claims, approves boards, revokes and replaces devices.

Every method may raise EnrolmentError, StorageError and, where something is signed or made, KeyUnavailable,
WrongPassphrase and OSError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from autoglm_edge_fleet.broker_access.folder import BrokerFolder
from autoglm_edge_fleet.config import FleetConfig
from autoglm_edge_fleet.database import Database
from autoglm_edge_fleet.enrolment.authority import Authority
from autoglm_edge_fleet.enrolment.certificates import (
    DeviceCertificate,
    newest_certificates,
    revoke_device,
)
from autoglm_edge_fleet.enrolment.claims import (
    ClaimRow,
    ClaimTerms,
    approve,
    list_claims,
    make_claims,
    revoke_claim,
)
from autoglm_edge_fleet.enrolment.sightings import suspicions
from autoglm_edge_fleet.errors import UnknownDevice
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_fleet.trust.fleet_trust import FleetTrust
from autoglm_edge_protocol.claims import Claim
from autoglm_edge_protocol.documents import first_problem
from autoglm_edge_protocol.errors import MalformedDocument


class Enrolment:
    """The enrolment of an opened fleet."""

    def __init__(
        self, directory: Path, config: FleetConfig, database: Database, passphrases: Passphrases, trust: FleetTrust
    ) -> None:
        self._directory = directory
        self._config = config
        self._database = database
        self._trust = trust
        self.authority = Authority(directory, config.name, passphrases)
        self.broker = BrokerFolder(directory, config.name, database, self.authority)

    def found(self, plain: bool = False) -> None:
        """Make the fleet's authority unless there is one; `plain`: its key is not encrypted."""
        self.authority.found(plain)

    # claims ----

    def create_claims(
        self,
        count: int,
        terms: ClaimTerms,
        broker_url: str | None = None,
        device_broker_url: str | None = None,
        name_prefix: str | None = None,
    ) -> tuple[Claim, ...]:
        """Make claims, ready to be given to boards.

        `broker_url` is where boards ask, `device_broker_url` where they belong afterwards; None: as `fleet.toml` says.
        Raises MalformedDocument when an address or a tag cannot be in a claim.
        """
        if broker_url and not device_broker_url and self._config.enrolment_url is None:
            device_broker_url = broker_url  # one listener for both, which boards reach under another name than we do
        common = {
            "fleet": self._config.name,
            "tags": dict(terms.tags),
            "broker_url": broker_url or self._config.url_for_enrolment,
            "broker_ca": self._config.broker_authority(self._directory),
            "device_broker_url": device_broker_url,
            "fleet_ca_sha256": self.authority.fingerprint(),
            "root": self._trust.root_path.read_text(encoding="utf-8") if self._trust.is_founded else None,
            "name_prefix": name_prefix,
            "name": terms.device,
        }
        _claim(common | {"claim_id": "0" * 16, "secret": "0" * 64, "created_at": 0.0, "expires_at": 0.0})
        return tuple(_claim(common | vars(made)) for made in make_claims(self._database, count, terms))

    def claims(self) -> tuple[ClaimRow, ...]:
        """Return all claims, the oldest first."""
        return list_claims(self._database)

    def revoke_claim(self, claim_id: str) -> ClaimRow:
        """Make a claim worthless; a device that it has made already stays."""
        return revoke_claim(self._database, claim_id)

    # devices ----

    def approve(self, name: str) -> ClaimRow:
        """Let the board in that waits under this name, or with a claim of this id."""
        return approve(self._database, name)

    def revoke_device(self, device: str, reason: str) -> int:
        """Revoke all certificates of a device; returns how many were valid. Raises UnknownDevice."""
        if self.broker.settings() is not None:
            self.authority.open()  # before anything is done: the broker has to be told, which takes a signature
        return revoke_device(self._database, device, reason)

    def replace_device(
        self, device: str, terms: ClaimTerms, broker_url: str | None = None, device_broker_url: str | None = None
    ) -> Claim:
        """Make the claim with which another board takes a device's place, name and tags. Raises UnknownDevice.

        The old board goes on until the new one is enrolled.
        """
        names = [row[0] for row in self._database.read("SELECT name FROM devices")]
        if device not in names:
            raise UnknownDevice(device, names)
        terms = replace(terms, device=device, tags=terms.tags or self.tags()[device])
        return self.create_claims(1, terms, broker_url, device_broker_url)[0]

    def certificates(self) -> Mapping[str, DeviceCertificate]:
        """Return of each device the certificate that was issued last."""
        return newest_certificates(self._database)

    def suspicions(self) -> Mapping[str, str]:
        """Return what is said of devices that were seen on more than one board."""
        return suspicions(self._database)

    def tags(self) -> Mapping[str, Mapping[str, str]]:
        """Return the tags of every device."""
        return {row[0]: json.loads(row[1]) for row in self._database.read("SELECT name, tags FROM devices")}


def _claim(values: Mapping[str, object]) -> Claim:
    try:
        return Claim.model_validate(values)
    except ValidationError as error:
        raise MalformedDocument(Claim.kind, first_problem(error)) from None
