"""The director: signs what each device should run and do, and adds the way to the metadata.

`Sealing` is what the daemon needs of it; `Unsealed` is the same without any signature, for development.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from securesystemslib.signer import Signer
from tuf.api.metadata import Root

from autoglm_edge_fleet.errors import KeyUnavailable
from autoglm_edge_fleet.keys import KeyRing
from autoglm_edge_fleet.trust.catalogue import Shelved
from autoglm_edge_fleet.trust.lifetimes import COMMAND_S, DESIRED_S
from autoglm_edge_fleet.trust.roots import director_of
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState
from autoglm_edge_protocol.envelopes import seal
from autoglm_edge_protocol.signed import PAYLOAD_TYPES, SignedMessage


class Sealing(Protocol):
    """Makes messages of documents."""

    def epoch(self, now: float) -> str:
        """Return what changes whenever everything that brokers retain must be made anew."""
        ...

    def desired(self, desired: DesiredState, now: float) -> bytes:
        """Return the message of a desired state. Raises KeyUnavailable."""
        ...

    def command(self, command: Command, now: float) -> bytes:
        """Return the message of a command. Raises KeyUnavailable."""
        ...


class Unsealed:
    """Messages that prove nothing, as documents without an envelope."""

    def epoch(self, now: float) -> str:
        """Return always the same: nothing expires."""
        return "unsigned"

    def desired(self, desired: DesiredState, now: float) -> bytes:
        """Return the document."""
        return desired.to_bytes()

    def command(self, command: Command, now: float) -> bytes:
        """Return the document."""
        return command.to_bytes()


class Withheld:
    """What stands in for the director while its key is not at hand: nothing is sent, and it is said why."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def epoch(self, now: float) -> str:
        """Raise KeyUnavailable."""
        raise KeyUnavailable(self._reason)

    def desired(self, desired: DesiredState, now: float) -> bytes:
        """Raise KeyUnavailable."""
        raise KeyUnavailable(self._reason)

    def command(self, command: Command, now: float) -> bytes:
        """Raise KeyUnavailable."""
        raise KeyUnavailable(self._reason)


class Director:
    """Signs with the keys that the root names."""

    def __init__(self, signers: Sequence[Signer], fleet: str, state: Shelved) -> None:
        self._signers = signers
        self._fleet = fleet
        self._state = state

    def epoch(self, now: float) -> str:
        """Return the newest root, the day on which the timestamp expires, the keys, and thirds of DESIRED_S.

        Not the timestamp's version: a publication concerns only those who are told to run it. The thirds count when
        the timestamp is not renewed, for want of its key: desired states must be all the same.
        """
        keys = "+".join(sorted(signer.public_key.keyid[:12] for signer in self._signers))
        return f"{self._state.newest_root}/{self._state.expires}/{keys}/{math.floor(now / (DESIRED_S / 3))}"

    def desired(self, desired: DesiredState, now: float) -> bytes:
        """Return the message, good for `lifetimes.DESIRED_S` from now."""
        bound = desired.model_copy(update={"signed_at": now, "expires_at": now + DESIRED_S})
        return self._message(bound, desired.bundle.name if desired.bundle else None)

    def command(self, command: Command, now: float) -> bytes:
        """Return the message, good for as long as the command says, and `lifetimes.COMMAND_S` at the most."""
        expires_at = now + COMMAND_S if command.expires_at is None else min(command.expires_at, now + COMMAND_S)
        bound = command.model_copy(update={"fleet": self._fleet, "signed_at": now, "expires_at": expires_at})
        return self._message(bound, None)

    def _message(self, document: DesiredState | Command, model: str | None) -> bytes:
        sign = [(each.public_key.keyid, _signing(each)) for each in self._signers]
        envelope = seal(PAYLOAD_TYPES[type(document)], document.to_bytes(), sign)
        return SignedMessage(envelope=envelope, catalogue=self._state.catalogue(model)).to_bytes()


def _signing(signer: Signer) -> Callable[[bytes], bytes]:
    def sign(data: bytes) -> bytes:
        try:
            return bytes.fromhex(signer.sign(data).signature)
        except Exception as error:  # each module and service behind a signer has errors of its own
            problem = (str(error) or type(error).__name__).splitlines()[0]
            raise KeyUnavailable(
                f"the director's key {signer.public_key.keyid[:12]} does not sign: {problem}"
            ) from None

    return sign


def open_director(root: Root, ring: KeyRing, fleet: str, state: Shelved) -> Sealing:
    """Return the director, or what withholds when too few keys are at hand. Raises WrongPassphrase, BadMetadata."""
    wanted = director_of(root)
    signers: list[Signer] = []
    problem = ""
    for keyid in wanted.keyids:
        try:
            signers.append(ring.signer(root.keys[keyid]))
        except KeyUnavailable as error:
            problem = str(error)
    if len(signers) < wanted.threshold:
        return Withheld(f"desired states and commands wait for the director's key: {problem}")
    return Director(signers, fleet, state)
