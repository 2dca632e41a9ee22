"""The sections of the agent's configuration, and what may stand in them; `config_file` reads them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from autoglm_edge_agent.addresses import address_of, is_loopback, split_address
from autoglm_edge_agent.errors import ConfigurationError
from autoglm_edge_agent.inference.control import AccessOrder, ServingOrder
from autoglm_edge_agent.inference.measurement import Weights
from autoglm_edge_agent.inference.options import ProviderName
from autoglm_edge_agent.inference.probing import ProbeTerms
from autoglm_edge_agent.updates.allowance import QuietHours
from autoglm_edge_agent.updates.policy import SOURCES, SourceName, TransferPolicy
from autoglm_edge_protocol.documents import first_problem
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.mqtt import BrokerAddress
from autoglm_edge_protocol.names import DeviceName, FleetName
from autoglm_edge_protocol.probation import LONGEST_S, ProbationTerms, ShadowTerms

_SUN_PATH_BYTES = 107
"""The longest path of a Unix socket on Linux, without its final NUL."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _check_names(value: dict[str, Any], model: type[BaseModel]) -> None:
    if unknown := sorted(set(value) - set(model.model_fields)):
        raise ValueError(f"{unknown[0]} is unknown; it has {', '.join(model.model_fields)}")


class DeviceSection(_Section):
    """`[device]`: who this device is. With `identity` all that it says is taken from there, but what the file says."""

    fleet: FleetName
    name: DeviceName
    identity: Path | None = None
    """The folder that `autoglm-edge-agent enrol` has filled."""


class BrokerSection(_Section):
    """`[broker]`: where the broker is and how to prove who we are."""

    url: str
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    client_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,128}$")
    """Under which name to connect; None: `autoglm-FLEET-DEVICE`."""
    time_floor: float = Field(default=0.0, ge=0)
    """Unix time in seconds before which it cannot be: by it certificates are judged while the clock is behind."""

    def address(self) -> BrokerAddress:
        """Return the address. Raises MalformedDocument."""
        parsed = BrokerAddress.parse(self.url)
        return BrokerAddress(
            parsed.host,
            parsed.port,
            parsed.tls,
            parsed.user,
            parsed.password,
            self.ca_file,
            self.cert_file,
            self.key_file,
            self.time_floor,
        )


class StorageSection(_Section):
    """`[storage]`: where bundles and state live."""

    directory: Path = Path("/var/lib/autoglm-edge")
    reserve_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """Free space that an update never uses up."""

    @field_validator("directory")
    @classmethod
    def _plain(cls, value: Path) -> Path:
        _check_plain(value)
        return value


class ProbeSection(_Section):
    """`[inference.probe]`: how a new model's ways to run are measured when it is installed."""

    enabled: bool = True
    max_threads: int | None = Field(default=None, ge=1, le=256)
    """None: as many as the board has cores."""
    seconds: float = Field(default=0.5, gt=0, le=60)
    timeout_s: float = Field(default=60.0, gt=0)
    budget_s: float = Field(default=300.0, gt=0)
    strict: bool = False
    providers: dict[str, dict[ProviderName, dict[str, str]]] = Field(default_factory=dict)
    """`[inference.probe.providers.RUNTIME.PROVIDER]`: options of a provider, which is tried though its runtime does not
    list it."""
    weights: Weights = Weights()
    """`[inference.probe.weights]`"""

    @field_validator("weights", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if isinstance(value, dict):
            _check_names(value, Weights)
        return value

    def terms(self) -> ProbeTerms:
        """Return what the prober keeps to."""
        return ProbeTerms(
            max_threads=self.max_threads or os.cpu_count() or 1,
            seconds=self.seconds,
            timeout_s=self.timeout_s,
            budget_s=self.budget_s,
            strict=self.strict,
            providers=self.providers,
            weights=self.weights,
        )


class InferenceSection(_Section):
    """`[inference]`: how applications on the board reach the model."""

    socket: Path | None = Path("/run/autoglm-edge/inference.sock")
    http: str | None = "127.0.0.1:8000"
    """Address and port; port 0 takes a free one, which the device reports. Any but a loopback address needs
    `token_file` or `client_ca_file`."""
    grpc: str | None = None
    """Address and port for gRPC; it needs the extra `grpc` of this package. The same rules as for `http`."""
    standby: bool = False
    """Whether a second worker has the model loaded, to take over at once when the serving one dies."""
    fast_path: bool = True
    """Whether to offer the fast path (Linux), on a socket beside `socket` whose name ends with `.fast`."""
    shared_memory: bool = True
    """Whether HTTP clients may register shared memory by its name, as Triton's do."""
    max_batch: int = Field(default=1, ge=1, le=256)
    """How many requests of the lowest priority may run together, where the model's first dimension is free."""
    lease_file: Path | None = None
    """A file that agents and `serve` commands on one board share when their models share an accelerator."""
    token_file: Path | None = None
    """What clients over TCP must know, as `Authorization: Bearer TOKEN`."""
    cert_file: Path | None = None
    """With `key_file`: TLS for clients over TCP."""
    key_file: Path | None = None
    client_ca_file: Path | None = None
    """Clients over TCP must have a certificate of this authority."""
    threads: int = Field(default=1, ge=1, le=256)
    """Of a worker whose bundle was not measured."""
    trial_timeout_s: float = Field(default=120.0, gt=0)
    """How long loading a new model and replaying its golden set may take."""
    run_timeout_s: float = Field(default=60.0, gt=0)
    """How long one inference may take before the worker counts as hung."""
    probe: ProbeSection = ProbeSection()

    @model_validator(mode="after")
    def _guarded(self) -> InferenceSection:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if self.client_ca_file is not None and self.cert_file is None:
            raise ValueError("client_ca_file needs cert_file and key_file: certificates are a matter of TLS")
        for address in (self.http, self.grpc):
            if address is None:
                continue
            if self.token_file is None and self.client_ca_file is None:
                split_address(address)
            elif self.cert_file is None and not is_loopback(address_of(address)[0]):
                raise ValueError("a token must not be sent over a network in the clear: give cert_file and key_file")
        return self

    @property
    def fast_socket(self) -> Path | None:
        """Where the fast path is, None where it is not offered."""
        if self.socket is None or not self.fast_path or sys.platform != "linux":
            return None
        return self.socket.with_suffix(".fast")

    def serving(self, grpc: str | None = None) -> ServingOrder:
        """Return what a worker has to know of this; `grpc` is the address that was reserved for it."""
        access = AccessOrder(
            token_file=self.token_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
            client_ca_file=self.client_ca_file,
        )
        return ServingOrder(
            max_batch=self.max_batch,
            shared_memory=self.shared_memory,
            lease_file=self.lease_file,
            grpc=grpc,
            access=access,
        )

    @field_validator("socket")
    @classmethod
    def _short(cls, value: Path | None) -> Path | None:
        _check_plain(value)
        if value is not None and len(str(value).encode()) > _SUN_PATH_BYTES:
            raise ValueError(f"a Unix socket's path has at most {_SUN_PATH_BYTES} bytes")
        return value


class TelemetrySection(_Section):
    """`[telemetry]`: how often the board is looked at and told of."""

    sample_interval_s: float = Field(default=5.0, gt=0)
    batch_interval_s: float = Field(default=30.0, gt=0)
    spool_bytes: int = Field(default=1024 * 1024, ge=0)
    """Unsent batches are kept in memory up to this size; then the oldest are dropped and counted."""


class ProbationSection(_Section):
    """`[probation]`: how long a new model is watched before it is confirmed, and what its owner may ask for."""

    max_duration_s: float = Field(default=24 * 3600.0, ge=0, le=LONGEST_S)
    """The longest probation; a desired state that asks for a longer one gets this."""
    max_shadow_rate: float = Field(default=1.0, ge=0, le=1)
    """The largest share of live inputs that the previous model may also get; 0: it never runs beside the new one."""
    default: ProbationTerms = ProbationTerms()
    """`[probation.default]`: the terms where the desired state gives none."""

    @field_validator("default", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        # A document of a newer fleet may say more than we know; a file that a person wrote may not.
        if isinstance(value, dict):
            _check_names(value, ProbationTerms)
            if isinstance(value.get("shadow"), dict):
                _check_names(value["shadow"], ShadowTerms)
        return value


class TransferSection(_Section):
    """`[transfer]`: how bulk data may come."""

    max_bytes_per_s: int | None = Field(default=None, ge=1024)
    """No more than so many bytes of models a second; such a device takes no part in what many devices are sent."""
    quiet_hours: str | None = None
    """`HH:MM-HH:MM` by local time: no model is fetched then. Orders still come, and an update that waits says so."""
    share: bool = True
    """Whether blocks that many devices lack may come once for all of them."""
    block_bytes: int = Field(default=LIMITS.block_bytes, ge=512, le=LIMITS.block_bytes)
    """The largest block, where the way to the broker carries no larger one."""
    sources: tuple[SourceName, ...] = Field(default=SOURCES, min_length=1)
    """What is asked for files of bundles, in this order; what is left out is never asked."""

    @field_validator("sources")
    @classmethod
    def _each_once(cls, value: tuple[SourceName, ...]) -> tuple[SourceName, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each source is named once")
        if "fleet" in value[:-1]:
            raise ValueError("the fleet comes last: it is waited for, and none after it would be asked")
        return value

    @field_validator("quiet_hours")
    @classmethod
    def _hours(cls, value: str | None) -> str | None:
        if value is not None:
            QuietHours.parse(value)
        return value

    def policy(self) -> TransferPolicy:
        """Return what the fetcher keeps to."""
        hours = QuietHours.parse(self.quiet_hours) if self.quiet_hours else None
        return TransferPolicy(self.block_bytes, self.max_bytes_per_s, hours, self.share, sources=self.sources)


class TrustSection(_Section):
    """`[trust]`: whose word counts. Without a root nothing does, unless `insecure` says that everybody's does."""

    root: Path | None = None
    """Root metadata of the fleet's repository, as the owner gave it to the device."""
    insecure: bool = False
    """Check no signature: for development."""
    repository_url: str | None = None
    """The fleet's folder `repository` on a web server, to be asked before the fleet; `https://` only."""
    ca_file: Path | None = None
    """Whom to believe about that server's name; None: those whom the system believes."""

    @field_validator("repository_url")
    @classmethod
    def _https(cls, value: str | None) -> str | None:
        if value is not None and not _is_https(value):
            raise ValueError(f"{value!r} is not an https:// address")
        return value

    @model_validator(mode="after")
    def _one_of_them(self) -> TrustSection:
        if self.insecure and self.root is not None:
            raise ValueError("root and insecure exclude each other: with a root signatures are checked")
        return self


class Config(_Section):
    """The whole file."""

    device: DeviceSection
    broker: BrokerSection
    storage: StorageSection = StorageSection()
    inference: InferenceSection = InferenceSection()
    probation: ProbationSection = ProbationSection()
    telemetry: TelemetrySection = TelemetrySection()
    transfer: TransferSection = TransferSection()
    trust: TrustSection = TrustSection()
    _unidentified: str | None = PrivateAttr(default=None)

    @property
    def unidentified(self) -> str | None:
        """Why it is not known any more who this device is; None: it is known."""
        return self._unidentified

    def with_damaged_identity(self, problem: str) -> Config:
        """Return a copy of which it is not known who the device is, and why."""
        copy = self.model_copy()
        copy._unidentified = problem
        return copy


def _is_https(url: str) -> bool:
    """Whether this is an address that a server can be asked at."""
    try:
        parts = urlsplit(url)
        host, path = parts.hostname or "", parts.path
        host.encode("idna")  # what the resolver will do: UnicodeError for empty or long labels
        return parts.scheme == "https" and host != "" and parts.port != 0 and path.isascii() and " " not in path
    except ValueError:
        return False


def _check_plain(path: Path | None) -> None:
    if path is not None and "\0" in str(path):
        raise ValueError("a path cannot hold a NUL")


def serving_section(socket: Path | None, **settings: Any) -> InferenceSection:
    """Return how to serve without a configuration file: settings of `[inference]`. Raises ConfigurationError."""
    try:
        return InferenceSection(socket=None if socket is None else socket.absolute(), **settings)
    except ValidationError as error:
        raise ConfigurationError(first_problem(error)) from None
