"""Serving one bundle without a fleet: the agent's own supervisor and workers, for a developer at the board."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoglm_edge_agent.board import read_facts
from autoglm_edge_agent.cancellation import cancel
from autoglm_edge_agent.config import InferenceSection
from autoglm_edge_agent.errors import AgentError
from autoglm_edge_agent.inference.control import Beat
from autoglm_edge_agent.inference.listeners import (
    address_text,
    close_listeners,
    endpoints,
    open_listeners,
    reserve_grpc,
)
from autoglm_edge_agent.inference.supervisor import Supervisor
from autoglm_edge_agent.updates.fit import Capabilities, choose_variant
from autoglm_edge_protocol.bundle import verify
from autoglm_edge_protocol.deployment import BundleReference, Installed, Reason
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.manifest import MANIFEST_PATH

log = logging.getLogger(__name__)


def identify(directory: Path, variant: str | None) -> Installed:
    """Return what a bundle's directory holds, and the variant that fits this board best.

    Raises ProtocolError for a bundle that is damaged, Refusal where no variant fits.
    """
    manifest = verify(directory)
    facts = read_facts()
    chosen = choose_variant(manifest, variant, Capabilities(facts.runtimes, facts.memory_bytes))
    data = (directory / MANIFEST_PATH).read_bytes()
    reference = BundleReference(
        name=manifest.name,
        version=manifest.version,
        manifest_sha256=sha256_of(data),
        manifest_size_bytes=len(data),
    )
    return Installed(bundle=reference, variant=chosen.id)


async def serve(
    directory: Path,
    installed: Installed,
    section: InferenceSection,
    on_ready: Callable[[tuple[str, ...]], None],
) -> None:
    """Serve a bundle until SIGTERM or SIGINT.

    `on_ready` is called once with the addresses. Raises AgentError when the golden set disagrees, a socket cannot be
    had, or the model's worker keeps failing.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    grpc = reserve_grpc(section)
    listeners = open_listeners(section)
    try:
        supervisor = Supervisor(
            lambda _installed: directory,
            listeners,
            section.threads,
            section.trial_timeout_s,
            section.run_timeout_s,
            _count_nothing,
            lambda: None,
            section.serving(None if grpc is None else address_text(grpc)),
            standby=section.standby,
        )
        try:
            await supervisor.try_out(installed)
            await supervisor.switch(installed)
            on_ready(endpoints(listeners, grpc))
            await _until_stopped(supervisor, stop)
        finally:
            await supervisor.close()
    finally:
        close_listeners(listeners)
        if grpc is not None:
            grpc.close()


async def _until_stopped(supervisor: Supervisor, stop: asyncio.Event) -> None:
    failed: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()

    async def unserviceable(installed: Installed, reason: Reason) -> Installed:
        if not failed.done():
            failed.set_result(reason)
        return installed

    keeping = asyncio.create_task(supervisor.keep(unserviceable))
    stopped = asyncio.create_task(stop.wait())
    try:
        either: set[asyncio.Future[Any]] = {keeping, stopped, failed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            raise AgentError(f"the model cannot be kept serving: {failed.result().message}")
        if keeping.done():
            keeping.result()
    finally:
        await cancel(keeping, stopped)


def _count_nothing(_installed: Installed, _beat: Beat) -> None:
    """Beats are of use to telemetry and probation, and there is neither."""
