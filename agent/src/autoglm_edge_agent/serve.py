"""Serving one bundle without a fleet: the agent's own supervisor and workers, for a developer at the board."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
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
from autoglm_edge_agent.inference.measurement import Measured
from autoglm_edge_agent.inference.probed import Shelf
from autoglm_edge_agent.inference.probing import Prober, ProbeTerms
from autoglm_edge_agent.inference.supervisor import Supervisor
from autoglm_edge_agent.updates.fit import Capabilities, choose_variant, contenders
from autoglm_edge_protocol.bundle import verify
from autoglm_edge_protocol.deployment import BundleReference, Installed, Reason
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.manifest import MANIFEST_PATH

log = logging.getLogger(__name__)


def identify(directory: Path, variant: str | None, *, measures: bool = False) -> tuple[Installed, ...]:
    """Return the variant in a bundle's directory that fits this board best by the converter's figures.

    Where it is measured here, those follow that may run faster still. Raises ProtocolError for a bundle that is
    damaged, Refusal where no variant fits.
    """
    manifest = verify(directory)
    facts = read_facts()
    capabilities = Capabilities(facts.runtimes, facts.memory_bytes, measures=measures)
    chosen = choose_variant(manifest, variant, capabilities)
    data = (directory / MANIFEST_PATH).read_bytes()
    reference = BundleReference(
        name=manifest.name,
        version=manifest.version,
        manifest_sha256=sha256_of(data),
        manifest_size_bytes=len(data),
    )
    found = (chosen, *contenders(manifest, chosen, variant, capabilities))
    return tuple(Installed(bundle=reference, variant=each.id) for each in found)


class Measuring:
    """Finds how a bundle runs best on this board, once: what was found is kept in `folder`.

    `on_measured` is told of each way as soon as it was tried.
    """

    def __init__(self, directory: Path, folder: Path, on_measured: Callable[[Installed, Measured], None]) -> None:
        shelf = Shelf(folder, Disk())
        self.prober = Prober(lambda _installed: directory, shelf, ProbeTerms(), on_measured=on_measured)

    async def fastest(self, variants: Sequence[Installed]) -> Installed:
        """Return the variant that runs best. Raises AgentError where none runs in any way."""
        best = await self.prober.fastest(variants)
        if best is not None:
            return best
        tried = [found.disqualified for each in variants for found in self.prober.measured(each)]
        raise AgentError(f"no way to run {variants[0].bundle.id} works here: {tried[-1] if tried else 'none is known'}")


async def serve(
    directory: Path,
    variants: Sequence[Installed],
    section: InferenceSection,
    on_ready: Callable[[Installed, tuple[str, ...]], None],
    measuring: Measuring | None = None,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT: the first of its variants, or the one that runs best by `measuring`.

    `on_ready` is called once with the variant and the addresses. Raises AgentError when the golden set disagrees, a
    socket cannot be had, or the model's worker keeps failing.
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
            installed = variants[0]
            if measuring is not None:
                supervisor.prober = measuring.prober
                installed = await measuring.fastest(variants)
            await supervisor.try_out(installed)
            await supervisor.switch(installed)
            on_ready(installed, endpoints(listeners, grpc))
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
