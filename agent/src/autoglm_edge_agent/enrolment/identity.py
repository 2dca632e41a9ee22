"""The identity folder: who a device is, and how it proves it.

identity.json     who it is, where it belongs, until when the certificate lasts; written last, so that it is all there
device.key        the device's own key (mode 0600), which never leaves the board
device.pem        its certificate
fleet-ca.pem      the authority that signed it
broker-ca.pem     whom to believe about the broker's name; missing where the system knows
root.json         root metadata of the fleet's repository; missing where the fleet signs nothing
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from autoglm_edge_agent.errors import DamagedIdentity, StateError
from autoglm_edge_agent.storage.lost_bytes import is_lost
from autoglm_edge_protocol.claims import BrokerUrl, ClaimId
from autoglm_edge_protocol.documents import Document, parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import MalformedDocument, ProtocolError
from autoglm_edge_protocol.names import DeviceName, FleetName

RECORD_FILE = "identity.json"


class Identity(Document):
    """Who a device is."""

    kind: ClassVar[str] = "identity"

    fleet: FleetName
    device: DeviceName
    broker_url: BrokerUrl
    client_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")
    """Under which name it connects: too long to be guessed, as whoever connects under it ends its connection."""
    claim_id: ClaimId
    issued_at: float = Field(ge=0)
    """Unix time in seconds by the fleet's clock when it said so: it cannot be earlier."""
    not_before: float = Field(ge=0)
    not_after: float = Field(ge=0)
    """Of the certificate, Unix times in seconds."""


class IdentityFolder:
    """The folder's files. What writes may raise OSError."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path = path.absolute()
        self._disk = disk
        self.record = path / RECORD_FILE
        self.key = path / "device.key"
        self.certificate = path / "device.pem"
        self.authority = path / "fleet-ca.pem"
        self.broker_authority = path / "broker-ca.pem"
        self.root = path / "root.json"

    def read(self) -> Identity | None:
        """Return who the device is; None: nobody yet. Raises DamagedIdentity, StateError."""
        try:
            return parse(Identity, self.record.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ProtocolError) as error:
            damaged = is_lost(error) if isinstance(error, OSError) else isinstance(error, MalformedDocument)
            kind = DamagedIdentity if damaged else StateError
            raise kind(f"the identity in {self.path} cannot be used: {error}") from None

    def prepare(self) -> None:
        """Make the folder, for its owner alone."""
        self._disk.make_directories(self.path)
        self.path.chmod(0o700)

    def write(
        self, identity: Identity, certificate: str, authority: str, broker_authority: str | None, root: str | None
    ) -> None:
        """Write all of it but the key, the record last."""
        self._disk.commit(self.authority, authority.encode())
        self._put(self.broker_authority, broker_authority)
        self._put(self.root, root)
        self.renew(identity, certificate)

    def renew(self, identity: Identity, certificate: str) -> None:
        """Write a newer certificate of the same key. A loss of power leaves a record that asks for it once more."""
        self._disk.commit(self.certificate, certificate.encode())
        self._disk.commit(self.record, identity.to_text().encode())

    def _put(self, path: Path, text: str | None) -> None:
        if text is None:
            self._disk.unlink(path)
        else:
            self._disk.commit(path, text.encode())
