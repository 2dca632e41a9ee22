"""Real brokers for tests: the product's own local broker, by kind and folder."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.ports import free_port

from autoglm_edge_fleet.local_broker import LocalBroker, available_kinds

__all__ = ["Broker", "available_kinds"]


class Broker(LocalBroker):
    """A broker on a free loopback port that can be killed and started again with the same port and data.

    `settings` are lines that are added to its configuration.
    """

    def __init__(self, kind: str, directory: Path, settings: str = "") -> None:
        super().__init__(directory, kind)
        self.port = free_port()
        self._settings = settings

    def _configuration(self) -> str:
        return super()._configuration() + self._settings

    def log_text(self) -> str:
        return (self._directory / "broker.log").read_text(errors="replace")
