"""A damaged identity: waiting until it is known again who the device is."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from autoglm_edge_agent.enrolment.identity import IdentityFolder
from autoglm_edge_agent.enrolment.settings import known_identity
from autoglm_edge_agent.errors import StateError

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 10.0


async def identity_known_again(folder: IdentityFolder, broker: object, problem: str) -> None:
    """Return when a new claim has made an identity, or the files were put back.

    `broker`: the configuration's `[broker]`, which may name other files. `problem`: what is wrong with the folder.
    """
    log.error("%s; the fleet is not connected to until that is mended, or a new claim is here", problem)
    while True:
        await asyncio.sleep(LOOK_AGAIN_S)
        with contextlib.suppress(StateError):
            if known_identity(folder, broker) is not None:
                return
