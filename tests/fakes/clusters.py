"""A cluster of three NATS servers, whose sessions and retained messages live on all of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from tests.fakes.brokers import Broker
from tests.fakes.ports import free_port

from autoglm_edge_fleet.local_broker import NATS

NODES = 3


class Node(Broker):
    """One server of the cluster, which can be killed and started again as a broker alone can."""

    def __init__(self, directory: Path, number: int, routes: list[int]) -> None:
        super().__init__(NATS, directory)
        self._number = number
        self._routes = routes

    def _configuration(self) -> str:
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes)
        return (
            f'server_name: "node-{self._number}"\nlisten: "127.0.0.1:-1"\n'
            f'jetstream {{ store_dir: "{self.data.as_posix()}" }}\n'
            f'cluster {{ name: "edge", listen: "127.0.0.1:{self._routes[self._number]}", routes: [{routes}] }}\n'
            f'mqtt {{ listen: "127.0.0.1:{self.port}", ack_wait: "5s", stream_replicas: {NODES} }}\n'
        )


class NatsCluster:
    """Starts all nodes, which serve when most of them are there; a context manager."""

    def __init__(self, directory: Path) -> None:
        routes = [free_port() for _ in range(NODES)]
        self.nodes = [Node(directory / f"node-{number}", number, routes) for number in range(NODES)]

    def __enter__(self) -> NatsCluster:
        try:
            with ThreadPoolExecutor(NODES) as pool:
                list(pool.map(Node.start, self.nodes))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        for node in self.nodes:
            node.kill()
