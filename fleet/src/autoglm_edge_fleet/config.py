"""`fleet.toml`: the fleet's name and its broker; and how a command finds the fleet it works on."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import tomllib

from autoglm_edge_fleet.errors import BadSettings, NoFleetHere
from autoglm_edge_protocol.brokers import PROFILES, block_bytes_for
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import MalformedDocument
from autoglm_edge_protocol.mqtt import BrokerAddress
from autoglm_edge_protocol.names import LEVEL_PATTERN

SETTINGS_FILE = "fleet.toml"
ENVIRONMENT = "AUTOGLM_EDGE_FLEET"
DEFAULT_BROKER = "mqtt://127.0.0.1:1883"


@dataclass(frozen=True)
class FleetConfig:
    """What `fleet.toml` says. Relative TLS paths are taken from the folder of the fleet."""

    name: str
    broker: str = DEFAULT_BROKER
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    profile: str | None = None
    """What kind of broker it is: a name of `PROFILES`."""
    max_packet_bytes: int | None = None
    """The largest packet that it carries, where that is not the profile's."""
    device_url: str | None = None
    """The broker's address for devices; None: `broker`."""
    enrolment_url: str | None = None
    """The broker's address for boards that are to become devices; None: that for devices."""

    def __post_init__(self) -> None:
        if not re.match(LEVEL_PATTERN, self.name):
            raise BadSettings(f"{self.name!r} cannot name a fleet: use 1 to 64 of A-Z a-z 0-9 _ - and give --name")
        for url in (self.broker, self.device_url, self.enrolment_url):
            try:
                BrokerAddress.parse(self.broker if url is None else url)
            except MalformedDocument as error:
                raise BadSettings(str(error)) from None
        if self.profile is not None and self.profile not in PROFILES:
            raise BadSettings(f"profile = {self.profile!r} is no known broker: one of {', '.join(sorted(PROFILES))}")
        try:
            block_bytes_for(self.packet_bytes)
        except ValueError as error:
            raise BadSettings(f"max_packet_bytes: {error}") from None

    @property
    def packet_bytes(self) -> int | None:
        """The largest packet of the broker as far as the settings say, in bytes."""
        return self.max_packet_bytes or (PROFILES[self.profile].max_packet_bytes if self.profile else None)

    @property
    def publishes_per_s(self) -> float | None:
        """What one connection may publish; None: as much as it can."""
        return PROFILES[self.profile].publishes_per_s if self.profile else None

    @property
    def url_for_devices(self) -> str:
        """Where devices find the broker."""
        return self.device_url or self.broker

    @property
    def url_for_enrolment(self) -> str:
        """Where boards find it that are none yet."""
        return self.enrolment_url or self.url_for_devices

    def broker_authority(self, directory: Path) -> str | None:
        """Return whom to believe about the broker's name (PEM); None: whom the system believes. Raises BadSettings."""
        if self.ca_file is None:
            return None
        try:
            return (directory / self.ca_file).read_text(encoding="ascii")
        except (OSError, UnicodeError) as error:
            raise BadSettings(f"[broker] ca_file = {self.ca_file!r} cannot be read: {error}") from None

    def address(self, directory: Path) -> BrokerAddress:
        """Return the broker's address with its TLS files."""
        ca, cert, key = (directory / f if f else None for f in (self.ca_file, self.cert_file, self.key_file))
        return replace(BrokerAddress.parse(self.broker), ca_file=ca, cert_file=cert, key_file=key)

    def to_toml(self) -> str:
        """Return the text of the file."""
        text = f"name = {json.dumps(self.name)}\n\n[broker]\nurl = {json.dumps(self.broker)}\n"
        for key in ("ca_file", "cert_file", "key_file"):
            value = getattr(self, key)
            text += f"{key} = {json.dumps(value)}\n" if value else f'# {key} = "..."  # for mqtts://\n'
        names = ", ".join(sorted(PROFILES))
        text += f"profile = {json.dumps(self.profile)}\n" if self.profile else f"# profile = ...  # {names}\n"
        size = self.max_packet_bytes
        for key in ("device_url", "enrolment_url"):
            if value := getattr(self, key):
                text += f"{key} = {json.dumps(value)}\n"
        text += (
            f"max_packet_bytes = {size}\n" if size else "# max_packet_bytes = ...  # where the broker is set lower\n"
        )
        return text


def find_fleet(given: Path | None, environment: dict[str, str] | None = None) -> Path:
    """Return the folder of the fleet: the one given, else $AUTOGLM_EDGE_FLEET, else the current one.

    Raises NoFleetHere.
    """
    values = os.environ if environment is None else environment
    directory = given or Path(values.get(ENVIRONMENT) or ".")
    if not (directory / SETTINGS_FILE).is_file():
        raise NoFleetHere(
            f"no fleet in {directory.absolute()}: make one with `autoglm-edge fleet init DIR`, "
            f"or name one with --fleet DIR or {ENVIRONMENT}"
        )
    return directory


def read_config(directory: Path) -> FleetConfig:
    """Read `fleet.toml`. Raises NoFleetHere, BadSettings."""
    path = directory / SETTINGS_FILE
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NoFleetHere(f"no fleet in {directory}: make one with `autoglm-edge fleet init DIR`") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadSettings(f"{path} cannot be read: {error}") from None
    broker = values.pop("broker", {})
    if not isinstance(broker, dict):
        raise BadSettings(f"{path}: broker is a table: write [broker] and below it url = ...")
    if "name" in broker:
        raise BadSettings(f"{path}: 'broker.name' is no setting")
    settings = {"name": values.pop("name", None), "broker": broker.pop("url", None), **broker, **values}
    unknown = sorted(set(settings) - {field.name for field in fields(FleetConfig)})
    if unknown:
        raise BadSettings(f"{path}: {unknown[0]!r} is no setting")
    size = settings.pop("max_packet_bytes", None)
    if size is not None and (type(size) is not int or size < 1):
        raise BadSettings(f"{path}: max_packet_bytes is a number of bytes")
    wrong = sorted(key for key, value in settings.items() if not isinstance(value, str))
    if wrong:
        raise BadSettings(f"{path}: {wrong[0]} is missing or no text")
    return FleetConfig(**settings, max_packet_bytes=size)


def write_config(directory: Path, config: FleetConfig) -> None:
    """Write `fleet.toml`. Raises OSError."""
    Disk().commit(directory / SETTINGS_FILE, config.to_toml().encode())
