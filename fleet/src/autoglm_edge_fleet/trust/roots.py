"""Roots: the first one, the next one, and whether enough have signed. Pure, but for the signatures themselves.

A root names every key: of root itself, of targets, snapshot and timestamp, and of the director, who is no role of TUF
and stands in a field of its own. So one rule replaces all of them: a new root, signed by a threshold of the old root's
keys and a threshold of its own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import ValidationError
from tuf.api.metadata import Key, Metadata, Role, Root

from autoglm_edge_fleet.errors import BadMetadata, NotEnoughKeys, TrustError
from autoglm_edge_fleet.trust.lifetimes import ROOT
from autoglm_edge_protocol.signed import DIRECTOR_FIELD, Director

DIRECTOR = "director"
ONLINE_ROLES = ("targets", "snapshot", "timestamp", DIRECTOR)
"""Roles whose keys the fleet's side uses day by day."""


def first_root(root_keys: Iterable[Key], threshold: int, others: Mapping[str, Key], now: datetime) -> Root:
    """Return the first root, not signed. `others` has one key for each of ONLINE_ROLES. Raises TrustError."""
    root = Root(expires=ROOT.expiry(now))
    with_keys(root, "root", root_keys, threshold)
    for role in ONLINE_ROLES:
        with_keys(root, role, [others[role]], 1)
    return root


def next_root(root: Root, now: datetime) -> Root:
    """Return a copy with the next version and a new expiry."""
    new = copy.deepcopy(root)
    new.version += 1
    new.expires = ROOT.expiry(now)
    return new


def with_keys(root: Root, role: str, keys: Iterable[Key], threshold: int) -> None:
    """Let these keys, and no other, sign for a role. Raises TrustError when they could never be enough."""
    listed = {key.keyid: key for key in keys}
    if not 1 <= threshold <= len(listed):
        raise TrustError(f"{role} has {len(listed)} keys, so that a threshold of {threshold} makes no sense")
    if len({str(key.keyval) for key in listed.values()}) < len(listed):
        raise TrustError(f"one key is given twice for {role}")
    root.keys.update(listed)
    if role == DIRECTOR:
        value = Director(keyids=tuple(listed), threshold=threshold).model_dump(mode="json")
        root.unrecognized_fields[DIRECTOR_FIELD] = value
    else:
        root.roles[role] = Role(list(listed), threshold)
    used = {keyid for each in root.roles.values() for keyid in each.keyids}
    if DIRECTOR_FIELD in root.unrecognized_fields:
        used |= set(director_of(root).keyids)
    root.keys = {keyid: key for keyid, key in root.keys.items() if keyid in used}


def director_of(root: Root) -> Director:
    """Return who may sign desired states and commands. Raises BadMetadata."""
    try:
        director = Director.model_validate_json(json.dumps(root.unrecognized_fields[DIRECTOR_FIELD]))
        keys = [root.keys[keyid] for keyid in director.keyids]
    except (KeyError, TypeError, ValidationError) as error:
        raise BadMetadata(f"the root names no director that can be understood: {str(error).splitlines()[0]}") from None
    if len({str(key.keyval) for key in keys}) < len(keys):
        raise BadMetadata("the root names one key of the director twice")
    return director


def keyids_of(root: Root, role: str) -> tuple[list[str], int]:
    """Return the ids of the keys of a role and how many must sign. Raises BadMetadata."""
    if role == DIRECTOR:
        director = director_of(root)
        return list(director.keyids), director.threshold
    return list(root.roles[role].keyids), root.roles[role].threshold


def missing_signatures(previous: Root | None, pending: Metadata[Root]) -> list[str]:
    """Return for each group of keys that has not signed enough what is lacking; empty: it is complete."""
    new = pending.signed
    result = new.get_root_verification_result(previous, pending.signed_bytes, pending.signatures)
    first, second = result.first, result.second
    groups = [("the old root", first)] if previous is not None else []
    if previous is None or previous.roles["root"] != new.roles["root"]:
        groups.append(("the new root", second))
    return [
        f"{group.missing} more of the keys of {name} (one of {', '.join(sorted(key[:12] for key in group.unsigned))})"
        for name, group in groups
        if group.missing > 0
    ]


def check_successor(previous: Root, pending: Metadata[Root]) -> None:
    """Check that every client that trusts `previous` will take `pending`. Raises NotEnoughKeys, BadMetadata."""
    if pending.signed.version != previous.version + 1:
        raise BadMetadata(f"the new root has version {pending.signed.version}, not {previous.version + 1}")
    director_of(pending.signed)
    if missing := missing_signatures(previous, pending):
        raise NotEnoughKeys(f"root {pending.signed.version} needs {' and '.join(missing)}")
