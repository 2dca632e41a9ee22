"""What an identity says in the place of a configuration file: pure but for reading the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoglm_edge_agent.enrolment.identity import Identity, IdentityFolder
from autoglm_edge_agent.errors import DamagedIdentity, StateError
from autoglm_edge_protocol.durable import Disk

_NOBODY: dict[str, dict[str, Any]] = {
    "device": {"fleet": "unidentified", "name": "unidentified"},
    "broker": {"url": "mqtts://unidentified.invalid"},
}
"""The name is one that no resolver knows (RFC 6761, section 6.4)."""


def with_identity(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a file, filled up from the identity that it names. Raises DamagedIdentity, StateError."""
    device = values.get("device")
    path = device.get("identity") if isinstance(device, dict) else None
    if not isinstance(path, str):
        return values
    folder = IdentityFolder(Path(path), Disk())
    identity = known_identity(folder, values.get("broker"))
    if identity is None:
        raise StateError(f"this board is no device yet, {folder.record} is missing: run `autoglm-edge-agent enrol`")
    return _filled(values, _settings(identity, folder))


def without_identity(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a file whose identity is damaged: what serves is served, and nobody is connected to."""
    return _filled(values, _NOBODY)


def known_identity(folder: IdentityFolder, broker: object = None) -> Identity | None:
    """Return who the device is, if the files that prove it are there, too; None: nobody yet.

    `broker`: a configuration's `[broker]`, which may name other files. Raises DamagedIdentity, StateError.
    """
    identity, given = folder.read(), broker if isinstance(broker, dict) else {}
    for name, path in (("cert_file", folder.certificate), ("key_file", folder.key)):
        if identity is not None and given.get(name, str(path)) == str(path) and not path.is_file():
            raise DamagedIdentity(f"the identity in {folder.path} is damaged: {path.name} is missing")
    return identity


def _settings(identity: Identity, folder: IdentityFolder) -> dict[str, dict[str, Any]]:
    broker: dict[str, Any] = {
        "url": identity.broker_url,
        "client_id": identity.client_id,
        "time_floor": identity.issued_at,
        "cert_file": str(folder.certificate),
        "key_file": str(folder.key),
    }
    if folder.broker_authority.is_file():
        broker["ca_file"] = str(folder.broker_authority)
    trust = {"root": str(folder.root)} if folder.root.is_file() else {}
    return {"device": {"fleet": identity.fleet, "name": identity.device}, "broker": broker, "trust": trust}


def _filled(values: dict[str, Any], settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return both, where what was given explicitly wins."""
    filled = dict(values)
    for section, settled in settings.items():
        given = values.get(section, {})
        if not isinstance(given, dict):
            continue
        if section == "trust" and given.get("insecure"):
            continue  # with a root signatures are checked, and the file says not to
        filled[section] = settled | given
    return filled
