"""Writes the files of a broker, and writes them anew when devices come and go."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from autoglm_edge_fleet.broker_access import emqx, mosquitto, nats
from autoglm_edge_fleet.broker_access.plan import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    REVOKED_FILE,
    BrokerPlan,
    BrokerSettings,
    Kind,
)
from autoglm_edge_fleet.broker_access.rights import FLEET_USER
from autoglm_edge_fleet.database import Database
from autoglm_edge_fleet.enrolment.authority import FOLDER, Authority, Certificate
from autoglm_edge_fleet.enrolment.certificates import outcast_devices, revocations, valid_certificates
from autoglm_edge_fleet.errors import BadSettings
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import ProtocolError

SETTINGS_FILE = "broker.json"
FLEET_CERTIFICATE = f"{FOLDER}/fleet-client.pem"
FLEET_KEY = f"{FOLDER}/fleet-client.key"

_FILES: dict[Kind, Callable[[BrokerPlan], dict[str, str]]] = {
    "mosquitto": mosquitto.files,
    "nats": nats.files,
    "emqx": emqx.files,
}
_RELOAD_S = 30.0


class BrokerFolder:
    """The files of the broker of the fleet in `directory`.

    Every method may raise BadSettings, StorageError, OSError and, where something is signed, what `Authority` raises.
    """

    def __init__(self, directory: Path, fleet: str, database: Database, authority: Authority) -> None:
        self._directory = directory
        self._fleet = fleet
        self._database = database
        self._authority = authority
        self._disk = Disk()

    def settings(self) -> BrokerSettings | None:
        """Return what it was told last; None: nothing yet."""
        path = self._directory / SETTINGS_FILE
        try:
            return parse(BrokerSettings, path.read_bytes())
        except FileNotFoundError:
            return None
        except ProtocolError as error:
            raise BadSettings(f"{path}: {error}") from None

    def configure(self, settings: BrokerSettings) -> tuple[Path, ...]:
        """Write everything: new certificates for the broker and the fleet, whose keys stay, and the rest."""
        now = time.time()
        folder = Path(settings.folder)
        self._disk.make_directories(folder)
        self._certify(
            folder / KEY_FILE, folder / CERTIFICATE_FILE, partial(self._authority.issue_server, settings.hosts, now)
        )
        self._disk.commit(folder / AUTHORITY_FILE, self._authority.pem().encode())
        self._certify(
            self._directory / FLEET_KEY,
            self._directory / FLEET_CERTIFICATE,
            partial(self._authority.issue_client, FLEET_USER, now),
        )
        self._disk.commit_private(self._directory / SETTINGS_FILE, settings.to_text().encode())
        fixed = [folder / name for name in (AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE)]
        return (*fixed, *self.refresh())

    def _certify(self, key_path: Path, path: Path, issue: Callable[[bytes | None], tuple[Certificate, bytes]]) -> None:
        """Write a certificate for the next years.

        With the same key one file is replaced: whoever reads both, at any moment or after a loss of power, has a pair.
        """
        kept = key_path.read_bytes() if key_path.is_file() else None
        certificate, key = issue(kept)
        if kept is None:
            self._disk.commit_private(key_path, key)
        self._disk.commit(path, certificate.pem.encode())

    def refresh(self) -> tuple[Path, ...]:
        """Write anew what devices change, where there is a broker; returns what was written."""
        settings = self.settings()
        if settings is None:
            return ()
        plan = BrokerPlan(self._fleet, settings, valid_certificates(self._database), outcast_devices(self._database))
        folder, written = Path(settings.folder), []
        for name, text in _FILES[settings.broker](plan).items():
            written.append(folder / name)
            if settings.broker == "nats":  # the secret between its servers is in them
                self._disk.commit_private(written[-1], text.encode())
            else:
                self._disk.commit(written[-1], text.encode())
        revoked = self._authority.revocations(revocations(self._database), time.time())
        self._disk.commit(folder / REVOKED_FILE, revoked)
        return (*written, folder / REVOKED_FILE)

    def reload(self) -> str | None:
        """Let the broker read its files, where it is known how; returns what went wrong."""
        settings = self.settings()
        if settings is None or not settings.reload:
            return None
        try:
            done = subprocess.run(settings.reload, capture_output=True, text=True, timeout=_RELOAD_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the broker was not reloaded: {error}"
        said = done.stderr.strip().splitlines() or ["no word of why"]
        return f"the broker was not reloaded, exit code {done.returncode}: {said[-1]}" if done.returncode else None
