"""What the files of a broker are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from autoglm_edge_fleet.enrolment.certificates import DeviceCertificate
from autoglm_edge_protocol.documents import Document

Kind = Literal["mosquitto", "nats", "emqx"]

AUTHORITY_FILE = "fleet-ca.pem"
CERTIFICATE_FILE = "broker.pem"
KEY_FILE = "broker.key"
REVOKED_FILE = "revoked.pem"


class BrokerSettings(Document):
    """What `fleet broker config` was told, kept in `broker.json` so that the files can be written anew."""

    kind: ClassVar[str] = "broker settings"

    broker: Kind
    hosts: tuple[str, ...] = Field(min_length=1)
    """Names and addresses under which devices find it, the first as the fleet does."""
    bind: str = "0.0.0.0"  # noqa: S104  devices come from anywhere
    port: int = Field(ge=1, le=65535)
    enrolment_port: int = Field(ge=1, le=65535)
    inner_ports: tuple[int, int] = (4222, 7422)
    """NATS alone, on the loopback interface: of its own protocol, and between its two servers."""
    secret: str = Field(repr=False)
    """Between NATS's two servers, which are on one machine."""
    folder: str
    """Where the files are written."""
    place: str
    """Where the broker finds them; that folder, or where it is copied to."""
    reload: tuple[str, ...] = ()
    """The command that lets the broker read them; empty: somebody does that."""


@dataclass(frozen=True)
class BrokerPlan:
    """The settings, and what changes from day to day."""

    fleet: str
    settings: BrokerSettings
    valid: tuple[DeviceCertificate, ...]
    """Certificates that count."""
    outcast: tuple[str, ...]
    """Devices that have none any more."""

    def file(self, name: str) -> str:
        """Return the path of a file as the broker finds it."""
        return f"{self.settings.place.rstrip('/')}/{name}"
