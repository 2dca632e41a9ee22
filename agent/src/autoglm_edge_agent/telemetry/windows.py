"""Counts inferences by bundle and variant, between two batches. Pure but for the time it is given."""

from __future__ import annotations

from autoglm_edge_agent.inference.control import Beat
from autoglm_edge_protocol.deployment import Installed
from autoglm_edge_protocol.histogram import merge
from autoglm_edge_protocol.telemetry import InferenceWindow


class InferenceWindows:
    """Merges the beats of workers into one window per variant."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._windows: dict[tuple[str, str], InferenceWindow] = {}
        self.worker_rss_bytes: int | None = None

    def add(self, installed: Installed, beat: Beat) -> None:
        """Count what a worker answered since its last beat."""
        self.worker_rss_bytes = beat.rss_bytes or self.worker_rss_bytes
        if beat.requests == 0:
            return
        key = (str(installed.bundle.id), installed.variant)
        window = self._windows.get(key)
        counted = [beat.latency] if window is None else [window.latency, beat.latency]
        self._windows[key] = InferenceWindow(
            bundle=key[0],
            variant=key[1],
            started_at=self._began,
            duration_s=0.0,
            requests=beat.requests + (window.requests if window else 0),
            errors=beat.errors + (window.errors if window else 0),
            latency=merge(counted),
        )

    def take(self, now: float) -> tuple[InferenceWindow, ...]:
        """Return the windows, ended at `now` (Unix time in seconds), and begin new ones."""
        duration_s = max(0.0, now - self._began)  # a clock that was set back must not make a negative time
        taken = tuple(w.model_copy(update={"duration_s": duration_s}) for w in self._windows.values())
        self._windows, self._began = {}, now
        return taken
