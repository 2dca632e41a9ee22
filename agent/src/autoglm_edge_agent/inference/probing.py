"""Measured, not guessed: tries each way to run a newly installed variant, and says in which order to use them.

Each candidate runs in a process of its own. One that crashes, hangs or disagrees with the golden set is disqualified;
none of that reaches the agent.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from autoglm_edge_agent.inference.abilities import providers_of
from autoglm_edge_agent.inference.candidates import candidates
from autoglm_edge_agent.inference.hardware import hardware_key
from autoglm_edge_agent.inference.isolated import ask
from autoglm_edge_agent.inference.measurement import Figures, Measured, Weights, acceleration, best_of, ranked
from autoglm_edge_agent.inference.options import Plan, ProviderName
from autoglm_edge_agent.inference.probed import Entry, Shelf
from autoglm_edge_agent.inference.runtimes import installed_runtimes, usable_runtimes
from autoglm_edge_protocol.deployment import Acceleration, Installed
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import Part, parse
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import MANIFEST_PATH, Manifest, Variant

log = logging.getLogger(__name__)

_PROBE = "autoglm_edge_agent.inference.probe"


class ProbeTerms(Part):
    """How candidates are tried."""

    max_threads: int = os.cpu_count() or 1
    seconds: float = 0.5
    """How long each candidate is measured."""
    timeout_s: float = 60.0
    """After which a candidate counts as hung, loading included."""
    budget_s: float = 300.0
    """After which no further candidate is begun."""
    strict: bool = False
    """Whether a candidate that leaves part of the graph to the processor is disqualified, and not only reported."""
    providers: dict[str, dict[ProviderName, dict[str, str]]] = Field(default_factory=dict)
    """See `candidates.ProviderSettings`."""
    weights: Weights = Weights()


class Prober:
    """Tries candidates, and knows which were the best."""

    def __init__(
        self,
        bundle_path: Callable[[Installed], Path],
        shelf: Shelf,
        terms: ProbeTerms,
        hardware: str | None = None,
        runtimes: Mapping[str, str] | None = None,
        on_measured: Callable[[Installed, Measured], None] | None = None,
    ) -> None:
        """`on_measured` is told of each candidate that was tried just now."""
        self._bundle_path = bundle_path
        self._shelf = shelf
        self._terms = terms
        self._hardware = hardware_key() if hardware is None else hardware
        self._runtimes = installed_runtimes() if runtimes is None else runtimes
        self._on_measured = on_measured

    def measured(self, installed: Installed) -> tuple[Measured, ...]:
        """Return what is known of all candidates, disqualified ones too."""
        return self._entry(installed).measured

    def plans(self, installed: Installed) -> tuple[Plan, ...]:
        """Return how to run it, the best first; nothing where nothing was measured or every candidate disqualified."""
        folder = self._shelf.graphs(installed.bundle.manifest_sha256)
        best = ranked(self.measured(installed), self._terms.weights)
        return tuple(found.plan.keeping(folder) for found in best)

    def acceleration(self, installed: Installed) -> Acceleration | None:
        """Return what the fleet is told of how it runs."""
        return acceleration(self.measured(installed), self._terms.weights)

    async def measure(self, installed: Installed) -> None:
        """Try the candidates that were not tried yet. Never fails: without figures the usual way is taken."""
        entry = self._entry(installed)
        if entry.done:
            return
        try:
            await self._measure(installed, entry)
        except (OSError, ProtocolError) as error:
            log.warning("%s cannot be measured: %s", installed.bundle.id, error)

    async def fastest(self, variants: Sequence[Installed]) -> Installed | None:
        """Measure variants and return the one that runs best, of those alike the first; None where none could run."""
        for installed in variants:
            await self.measure(installed)
        best = best_of([self.measured(installed) for installed in variants], self._terms.weights)
        return None if best is None else variants[best]

    async def _measure(self, installed: Installed, entry: Entry) -> None:
        data = (self._bundle_path(installed) / MANIFEST_PATH).read_bytes()
        variant = parse(Manifest, data, LIMITS.manifest_bytes).variant(installed.variant)
        if variant is None:
            return
        terms = self._terms
        plans = candidates(await self._providers(variant), terms.max_threads, terms.providers, strict=terms.strict)
        known = {_identity(found.plan) for found in entry.measured}
        deadline = time.monotonic() + terms.budget_s
        for plan in plans:
            if _identity(plan) in known:
                continue
            if time.monotonic() > deadline:
                log.warning("%s: %s and what follows are not measured any more", installed.bundle.id, plan)
                break
            entry = await self._one(installed, entry, plan)
        self._keep(installed, entry.model_copy(update={"done": True}))
        if best := ranked(entry.measured, terms.weights):
            log.info("%s (%s) runs best with %s", installed.bundle.id, installed.variant, best[0].plan)

    async def _one(self, installed: Installed, entry: Entry, plan: Plan) -> Entry:
        if entry.gives_up(plan):
            found = Measured(plan=plan, disqualified="the agent or the board ended each time that it was tried")
        else:
            entry = self._keep(installed, entry.begin(plan))
            found = await self._try(installed, plan)
        if found.disqualified:
            log.warning("%s: %s is disqualified: %s", installed.bundle.id, plan, found.disqualified)
        elif found.partial:
            log.warning("%s: %s leaves nodes to others: %s", installed.bundle.id, plan, dict(found.placement))
        if self._on_measured is not None:
            self._on_measured(installed, found)
        return self._keep(installed, entry.end(found))

    async def _try(self, installed: Installed, plan: Plan) -> Measured:
        question = {
            "bundle": str(self._bundle_path(installed)),
            "variant": installed.variant,
            "plan": plan.model_dump(mode="json"),
            "seconds": self._terms.seconds,
        }
        outcome = await ask(_PROBE, question, self._terms.timeout_s)
        if outcome.how != "answered":
            return Measured(plan=plan, disqualified=f"{outcome.how}: {outcome.why}"[:2000])
        try:
            placement, figures = outcome.value["placement"], Figures.model_validate(outcome.value["figures"])
            found = Measured(plan=plan, figures=figures, placement=placement)
        except (ValidationError, KeyError, TypeError) as error:
            return Measured(plan=plan, disqualified=f"failed: it answered nonsense: {error}"[:2000])
        if found.partial and self._terms.strict:
            where = ", ".join(f"{count} on {name}" for name, count in found.placement.items())
            return Measured(plan=plan, placement=found.placement, disqualified=f"fell back in part: {where}")
        return found

    async def _providers(self, variant: Variant) -> dict[str, tuple[str, ...]]:
        """Ask each runtime that reads the variant what it has; one that cannot be asked has nothing to try."""
        found: dict[str, tuple[str, ...]] = {}
        for runtime in usable_runtimes(variant, self._runtimes):
            listed = await providers_of(runtime)
            if listed.how == "answered":
                found[runtime] = tuple(map(str, listed.value))
            else:
                log.warning("the runtime %s is not tried: %s, %s", runtime, listed.how, listed.why)
        return found

    def _entry(self, installed: Installed) -> Entry:
        return self._shelf.read(installed.bundle.manifest_sha256).entry(self._key(installed))

    def _key(self, installed: Installed) -> str:
        terms: list[Any] = [self._terms.max_threads, self._terms.strict]
        if self._terms.providers:
            terms.append(self._terms.providers)
        told = [installed.variant, sorted(self._runtimes.items()), self._hardware, terms]
        return sha256_of(json.dumps(told, sort_keys=True).encode())

    def _keep(self, installed: Installed, entry: Entry) -> Entry:
        digest = installed.bundle.manifest_sha256
        self._shelf.write(digest, self._shelf.read(digest).put(entry))
        return entry


def _identity(plan: Plan) -> str:
    return plan.model_dump_json()
