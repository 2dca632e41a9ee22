"""`autoglm-edge fleet ...`: the owner's commands and the daemon."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from autoglm_edge.console import EXIT_FAILED, EXIT_INTERRUPTED, err, out, print_json
from autoglm_edge.fleet_broker import broker
from autoglm_edge.fleet_claims import claim
from autoglm_edge.fleet_devices import devices
from autoglm_edge.fleet_init import init
from autoglm_edge.fleet_json import deployment_json, device_json
from autoglm_edge.fleet_options import (
    FleetOption,
    JsonOption,
    PassphraseOption,
    PinOption,
    find_passphrases,
    open_fleet,
)
from autoglm_edge.fleet_probation import read_terms
from autoglm_edge.fleet_tables import bundles_table, deployments_table, reasons, status_table
from autoglm_edge.fleet_trust import audit, keys, repository
from autoglm_edge_fleet.config import find_fleet
from autoglm_edge_fleet.deployments import Deployment
from autoglm_edge_fleet.errors import UnknownDevice
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.limits import FLEET_LIMITS
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_fleet.printable import printable
from autoglm_edge_fleet.service import serve as serve_fleet
from autoglm_edge_protocol.commands import Answer, Outcome
from autoglm_edge_protocol.event_loops import run
from autoglm_edge_protocol.names import BundleId

app = typer.Typer(no_args_is_help=True, help="Publish bundles, tell devices what to run, and see what they do.")


app.command()(init)
app.command()(audit)
app.add_typer(keys, name="keys")
app.add_typer(repository, name="repository")
app.add_typer(claim, name="claim")
app.add_typer(devices, name="devices")
app.add_typer(broker, name="broker")


@app.command()
def publish(
    bundle: Annotated[Path, typer.Argument(help="A bundle: its folder, or the packed .bundle file.")],
    fleet: FleetOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle, put it into the repository and sign it. A published bundle never changes."""
    columns = (TextColumn("[progress.description]{task.description}"), BarColumn(), DownloadColumn())
    with (
        open_fleet(fleet, passphrase_file, pin_file) as opened,
        Progress(*columns, TransferSpeedColumn(), console=err, transient=True) as progress,
    ):
        task = progress.add_task("verifying and storing", total=_bytes_to_do(bundle))
        done = opened.publish(bundle, lambda count: progress.advance(task, count))
    if as_json:
        reference = done.bundle.reference.model_dump(mode="json")
        print_json({"id": str(done.bundle.id), "new": done.is_new, "new_bytes": done.new_bytes, "reference": reference})
    elif done.is_new:
        out.print(f"{done.bundle.id} published: {done.bundle.size_bytes:,} bytes, {done.new_bytes:,} of them new")
    else:
        out.print(f"{done.bundle.id} was published before, with the same content")


def _bytes_to_do(bundle: Path) -> int | None:
    """Return what the progress of a publication adds up to: each byte is verified once and stored once."""
    if bundle.is_dir():
        return 2 * sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    return 2 * bundle.stat().st_size if bundle.exists() else None


@app.command()
def bundles(fleet: FleetOption = None, as_json: JsonOption = False) -> None:
    """List what is published."""
    with open_fleet(fleet) as opened:
        listed = opened.bundles()
    if as_json:
        print_json([{"id": str(b.id), **asdict(b), "reference": b.reference.model_dump(mode="json")} for b in listed])
    else:
        out.print(bundles_table(listed))


@app.command()
def deploy(
    bundle: Annotated[str, typer.Argument(help="NAME@VERSION of a published bundle.")],
    to: Annotated[str, typer.Option(help="Name of a device, or `all` that were ever seen.")],
    variant: Annotated[str | None, typer.Option(help="Id of a variant; else each device takes what fits it.")] = None,
    create: Annotated[bool, typer.Option("--create", help="The device may be one that was never seen.")] = False,
    allow_downgrade: Annotated[
        bool,
        typer.Option("--allow-downgrade", help="Below the highest version a device has confirmed; needs --reason."),
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="Why a downgrade is allowed: signed, sent, and kept in the log.")
    ] = None,
    probation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="What the bundle must keep to there, such as duration_s=60; `shadow` compares it with its predecessor"
            " on live inputs. May be given several times; else the device's own terms.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow until each device has confirmed or failed.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long to follow, in seconds.")] = 600.0,
    fleet: FleetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell devices to run a bundle. With --wait, exit code 1 when one has failed or is not done in time."""
    if allow_downgrade != (reason is not None):
        raise typer.BadParameter("--allow-downgrade and --reason TEXT come together")
    if reason is not None and not 1 <= len(reason.strip()) <= 500:
        raise typer.BadParameter("--reason has 1 to 500 characters")
    terms = read_terms(probation or ())
    with open_fleet(fleet) as opened:
        names = opened.device_names() if to == "all" else (to,)
        if not names:
            raise UnknownDevice(to, ())
        deployments = opened.deploy(BundleId.parse(bundle), names, variant, create, reason, terms)
        if not as_json:
            out.print(f"{bundle} is now wanted on {len(names)} device{'' if len(names) == 1 else 's'}")
        if wait:
            deployments = _follow(opened, deployments, timeout_s)
    if as_json:
        print_json([deployment_json(each) for each in deployments])
    elif wait:
        _print_outcomes(deployments, timeout_s)
    if wait and not all(each.succeeded for each in deployments):
        raise typer.Exit(EXIT_FAILED)


def _follow(fleet: Fleet, issued: tuple[Deployment, ...], timeout_s: float) -> tuple[Deployment, ...]:
    with Live(deployments_table(issued), console=err, transient=True, auto_refresh=False) as live:
        return fleet.wait_for_deployments(
            issued, timeout_s, lambda now: live.update(deployments_table(now), refresh=True)
        )


def _print_outcomes(deployments: tuple[Deployment, ...], timeout_s: float) -> None:
    for each in deployments:
        reason = f": {printable(each.reason.message, 2000)} ({each.reason.code})" if each.reason else ""
        late = "" if each.ended else f", not done after {timeout_s:.0f} s"
        line = f"{each.device}: {each.bundle} (generation {each.generation}) {printable(each.phase)}{late}{reason}"
        out.print(line, markup=False, soft_wrap=True)


@app.command()
def status(
    fleet: FleetOption = None,
    window_s: Annotated[float, typer.Option(help="Telemetry of the last so many seconds.")] = (
        FLEET_LIMITS.telemetry_window_s
    ),
    as_json: JsonOption = False,
) -> None:
    """Show every device's newest deployment, and what it measured lately."""
    with open_fleet(fleet) as opened:
        listed = opened.status(window_s)
    if as_json:
        print_json([device_json(each) for each in listed])
    else:
        out.print(status_table(listed), *reasons(listed), sep="\n")


@app.command()
def command(
    device: Annotated[str, typer.Argument(help="Name of the device.")],
    name: Annotated[str, typer.Argument(help="Name of the command.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer; exit code 1 unless it succeeded.")] = False,
    expires_s: Annotated[float, typer.Option(help="The device ignores it after so many seconds.")] = 3600.0,
    fleet: FleetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Queue a command for a device; it is kept until the device answers or it expires."""
    pairs = [argument.partition("=") for argument in arguments or ()]
    if wrong := next((key for key, separator, _ in pairs if not separator), None):
        raise typer.BadParameter(f"{wrong!r} is not KEY=VALUE")
    with open_fleet(fleet) as opened:
        queued = opened.command(device, name, {key: value for key, _, value in pairs}, expires_s)
        answer = opened.wait_for_answer(queued.command_id).answer if wait else None
    if as_json:
        print_json({"command_id": queued.command_id, "answer": answer.model_dump(mode="json") if answer else None})
    elif answer is not None:
        _print_answer(answer)
    elif not wait:
        out.print(f"command {queued.command_id} queued")
    else:
        err.print(f"{device} did not answer within {max(0.0, expires_s):.0f} s")
    if wait and (answer is None or answer.outcome is not Outcome.SUCCEEDED):
        raise typer.Exit(EXIT_FAILED)


def _print_answer(answer: Answer) -> None:
    reason = f": {answer.reason.message} ({answer.reason.code})" if answer.reason else ""
    out.print(f"{answer.device}: {answer.outcome.value}{printable(reason, 2000)}", markup=False, soft_wrap=True)
    for key, value in answer.result.items():
        out.print(f"  {printable(key)}={printable(value, 2000)}", markup=False, soft_wrap=True)


@app.command()
def serve(
    fleet: FleetOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Sign nothing: for development only.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Serve the fleet over MQTT until interrupted: desired states, blocks of bundles, reports, telemetry.

    Signs with the director's key, and renews signatures before they expire as far as their keys are at hand.
    """
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    directory = find_fleet(fleet)
    interrupted = run(_serve(directory, quiet, find_passphrases(passphrase_file, pin_file), insecure))
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


async def _serve(directory: Path, quiet: bool, passphrases: Passphrases, insecure: bool) -> bool:
    stop = asyncio.Event()
    received: list[int] = []
    loop = asyncio.get_running_loop()

    def on_signal(number: int, _frame: object) -> None:
        received.append(number)
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)

    def say(line: str) -> None:
        if not quiet:
            out.print(line, markup=False, soft_wrap=True)

    say(f"serving the fleet in {directory}")
    await serve_fleet(directory, say, stop, passphrases, insecure)
    return signal.SIGINT in received
