"""The director's signature: opens envelopes by the keys that the trusted root names."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import ValidationError

from autoglm_edge_agent.trust.decision import Distrust
from autoglm_edge_agent.trust.repository import Repository
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState
from autoglm_edge_protocol.envelopes import Envelope
from autoglm_edge_protocol.errors import ProtocolError, UntrustedEnvelope
from autoglm_edge_protocol.signed import DIRECTOR_FIELD, Director, SignedMessage, open_signed

D = TypeVar("D", DesiredState, Command)


def open_envelope(model: type[D], envelope: Envelope, repository: Repository) -> D:
    """Return the document in an envelope. Raises Distrust."""
    try:
        return open_signed(model, SignedMessage(envelope=envelope), director_of(repository), repository.verifies)
    except UntrustedEnvelope as error:
        raise Distrust("untrusted-signature", str(error)) from None
    except ProtocolError as error:
        raise Distrust("malformed-message", str(error)) from None


def director_of(repository: Repository) -> Director:
    """Return who may sign. Raises Distrust."""
    root = repository.root
    try:
        director = Director.model_validate_json(json.dumps(root.unrecognized_fields[DIRECTOR_FIELD]))
        keys = [root.keys[keyid] for keyid in director.keyids]
    except (KeyError, ValidationError):
        raise Distrust("bad-root", "the root metadata names no director that can be understood") from None
    if len({str(key.keyval) for key in keys}) < len(keys):
        raise Distrust("bad-root", "the root metadata names one key of the director twice")
    return director
