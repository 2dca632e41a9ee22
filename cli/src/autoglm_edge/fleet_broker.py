"""`autoglm-edge fleet broker config`: what a broker has to be told about a fleet."""

from __future__ import annotations

import secrets
import shlex
from pathlib import Path
from typing import Annotated

import typer

from autoglm_edge.console import out, print_json
from autoglm_edge.fleet_options import FleetOption, JsonOption, PassphraseOption, PlainOption, open_fleet
from autoglm_edge_fleet.broker_access.plan import BrokerSettings, Kind
from autoglm_edge_protocol.address import BrokerAddress

broker = typer.Typer(no_args_is_help=True, help="Set a broker up, so that devices speak for themselves alone.")


@broker.callback()
def _group() -> None:
    """Set a broker up, so that devices speak for themselves alone."""


@broker.command()
def config(
    kind: Annotated[Kind, typer.Argument(help="mosquitto, nats, or emqx.")],
    host: Annotated[
        list[str],
        typer.Option(help="Name or address of the broker, as devices write it; the first as the fleet does, too."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the broker's files.")],
    port: Annotated[int, typer.Option(help="For devices and the fleet.")] = 8883,
    enrolment_port: Annotated[int, typer.Option(help="For boards that are to become devices.")] = 8884,
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104  devices come from anywhere
    inner_ports: Annotated[
        tuple[int, int],
        typer.Option(metavar="PORT PORT", help="NATS alone, on loopback: its own protocol, and between its servers."),
    ] = (4222, 7422),
    place: Annotated[
        str | None, typer.Option("--at", metavar="DIR", help="Where the broker will find the files; else there.")
    ] = None,
    reload: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="Lets the broker read its files again, such as a `systemctl reload`."),
    ] = None,
    use: Annotated[bool, typer.Option("--use", help="Let this fleet use that broker: change fleet.toml.")] = False,
    fleet: FleetOption = None,
    passphrase_file: PassphraseOption = None,
    unencrypted: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a broker's configuration: mutual TLS for devices, and rights that end at each device's own topics.

    Its folder holds the broker's private key: give it to the broker's user alone. Once written, the parts of it that
    devices change are written anew whenever one is enrolled, replaced or revoked.
    """
    with open_fleet(fleet, passphrase_file) as opened:
        opened.enrolment.found(unencrypted)
        known = opened.enrolment.broker.settings()
        settings = BrokerSettings(
            broker=kind,
            hosts=tuple(host),
            bind=bind,
            port=port,
            enrolment_port=enrolment_port,
            inner_ports=inner_ports,
            secret=known.secret if known else secrets.token_hex(24),
            folder=str(output.absolute()),
            place=place or str(output.absolute()),
            reload=tuple(shlex.split(reload)) if reload else (),
        )
        written = opened.enrolment.broker.configure(settings)
        urls = [str(BrokerAddress(host[0], each, tls=True)) for each in (port, enrolment_port)]
        if use:
            opened.use_broker(*urls)
        problem = opened.enrolment.broker.reload()
    if as_json:
        files = [str(path) for path in written]
        print_json({"files": files, "device_url": urls[0], "enrolment_url": urls[1], "problem": problem})
        return
    names = ", ".join(path.name for path in written)
    out.print(f"in {output}: {names}", markup=False, soft_wrap=True)
    out.print(f"devices and the fleet: {urls[0]}; boards that are none yet: {urls[1]}", markup=False, soft_wrap=True)
    if use:
        out.print("fleet.toml says so; restart `fleet serve`")
    if problem:
        out.print(problem, markup=False, soft_wrap=True)
