"""A real fleet whose broker lets nobody in without a certificate, and asks for one by the fleet's own files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.agents import FLEET
from tests.fakes.fleet_processes import FleetProcess
from tests.fakes.guarded_brokers import GuardedBroker

from autoglm_edge_fleet.broker_access.plan import Kind
from autoglm_edge_fleet.fleet import Fleet


@contextmanager
def guarded_fleet(kind: Kind, folder: Path, *hosts: str) -> Iterator[tuple[FleetProcess, GuardedBroker]]:
    """Run both; `hosts` are names that the broker has for others, beside its own."""
    fleet = Fleet.init(folder / "fleet", FLEET)
    broker = GuardedBroker(fleet, kind, folder / "broker")
    if hosts:
        settings = fleet.enrolment.broker.settings()
        assert settings is not None
        fleet.enrolment.broker.configure(settings.model_copy(update={"hosts": (*settings.hosts, *hosts)}))
    fleet.use_broker(*broker.urls)
    fleet.close()
    broker.fleet = fleet = Fleet.open(folder / "fleet")
    # The broker learns of a new device as an owner would have it: by the command that reloads it.
    with broker:
        broker.reload_by_command()
        with FleetProcess(folder / "fleet", broker.urls[0], fleet) as side:
            yield side, broker
