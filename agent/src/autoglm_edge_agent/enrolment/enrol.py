"""From a claim to an identity, in steps that can be cut off anywhere and begun again.

The key is on the disk before it is asked for, and the same key with the same claim always gets the same certificate: so
whatever is lost on the way, a board ends with one identity or goes on asking. What was written counts once the record
is there, which is written last.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable
from pathlib import Path

from autoglm_edge_agent.board import board_model
from autoglm_edge_agent.enrolment.answers import Issued, Refused
from autoglm_edge_agent.enrolment.asking import Asker, Say
from autoglm_edge_agent.enrolment.board_id import board_id
from autoglm_edge_agent.enrolment.identity import Identity, IdentityFolder
from autoglm_edge_agent.enrolment.key_process import ask_key
from autoglm_edge_agent.enrolment.key_wire import Given, KeyOrder, KeyResult
from autoglm_edge_agent.enrolment.settings import known_identity
from autoglm_edge_agent.errors import DamagedIdentity, Denied, Hindrance
from autoglm_edge_protocol.claims import Claim
from autoglm_edge_protocol.enrolment import Board

AskKey = Callable[[Path, KeyOrder], Awaitable[KeyResult]]


async def enrol(
    claim: Claim, folder: IdentityFolder, say: Say, timeout_s: float | None = None, key: AskKey = ask_key
) -> Identity:
    """Make this board a device, unless it is one; returns who it is.

    Raises:
        Denied: the fleet refuses, and asking again changes nothing.
        Hindrance: `not-enrolled` after `timeout_s`, `key-failed`. LinkError, StateError, OSError.
    """
    if (known := read_or_lost(folder, say)) is not None:
        return known
    folder.prepare()
    asked = await key(folder.key, KeyOrder())
    assert asked.csr is not None
    board = Board(
        board_id=board_id(claim.fleet), model=board_model()[:200], architecture=platform.machine() or "unknown"
    )
    asker = Asker(claim, asked.csr, wanted_name(claim, board), board, say)
    try:
        answer = await asyncio.wait_for(asker.ask(), timeout_s)
    except (asyncio.TimeoutError, TimeoutError):
        message = f"not enrolled within {timeout_s:.0f} s: this board waits for {asker.waits_for}"
        raise Hindrance("not-enrolled", message) from None
    if isinstance(answer, Refused):
        raise Denied(answer.code, f"the fleet {claim.fleet} refuses this board: {answer.message} ({answer.code})")
    await _check(answer, folder, key)
    folder.write(answer.identity, answer.certificate, answer.authority, answer.broker_ca, claim.root)
    return answer.identity


def read_or_lost(folder: IdentityFolder, say: Say = lambda _line: None) -> Identity | None:
    """Return who the board is; None: nobody yet, or that cannot be read any more. Raises StateError."""
    try:
        return known_identity(folder)
    except DamagedIdentity as error:
        say(f"{error}: asking the fleet for it with the claim")
        return None


def wanted_name(claim: Claim, board: Board) -> str:
    """Return what a board would like to be called: the same each time it asks."""
    if claim.name is not None:
        return claim.name
    return f"{claim.name_prefix or 'device'}-{(board.board_id or claim.claim_id)[:8]}"


async def _check(answer: Issued, folder: IdentityFolder, key: AskKey) -> None:
    given = Given(certificate=answer.certificate, authority=answer.authority, device=answer.identity.device)
    problem = (await key(folder.key, KeyOrder(given=given))).problem
    if problem is not None:
        raise Hindrance("bad-certificate", f"the fleet's answer is proven and yet wrong: {problem}")
