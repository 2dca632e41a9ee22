"""What the demonstration shows: a live table of the devices, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from autoglm_edge.demo.traffic import Traffic
from autoglm_edge.fleet_tables import deployments_table
from autoglm_edge_fleet.deployments import Deployment


class Screen:
    """Follows deployments."""

    def __init__(self, console: Console, traffic: Traffic | None) -> None:
        self._console = console
        self._traffic = traffic
        self._live = Live(console=console, refresh_per_second=8) if console.is_terminal else None
        self._told: dict[str, str] = {}
        self._began = time.monotonic()

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def show(self, deployments: Sequence[Deployment]) -> None:
        """Show the deployments as they are now."""
        if self._live:
            lines: list[RenderableType] = [deployments_table(deployments)]
            if self._traffic:
                lines.append(self._traffic_line())
            self._live.update(Group(*lines))
            return
        for each in deployments:
            if self._told.get(each.device) != each.phase and each.phase != "queued":
                self._told[each.device] = each.phase
                reason = f": {each.reason.message}" if each.reason else ""
                elapsed = time.monotonic() - self._began
                text = f"  {elapsed:5.1f} s  {each.device}  {each.phase}  {each.fraction:.0%}{reason}"
                self._console.print(text, markup=False, soft_wrap=True)

    def _traffic_line(self) -> Text:
        assert self._traffic is not None
        failed = len(self._traffic.failures)
        return Text(
            f"{self._traffic.requests:,} files classified by the devices meanwhile, {failed} requests failed",
            "red" if failed else "dim",
        )
