"""The command `autoglm-edge-agent`.

Exit codes: 0 done; 1 could not be done, one line says why; 2 the command line is wrong; 3 the fleet refuses this board
for good (`enrol`).

Each command imports what it needs: all of the agent takes seconds to load on a small board, and what runs at every boot
needs little of it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoglm_edge_agent import __version__

if TYPE_CHECKING:
    from autoglm_edge_agent.inference.measurement import Measured
    from autoglm_edge_protocol.deployment import Installed

app = typer.Typer(
    name="autoglm-edge-agent",
    help="Runs on the device: pulls model bundles over MQTT, serves inference, reports telemetry.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration (TOML); see docs/agent.md.")]
DEFAULT_CONFIG = Path("/etc/autoglm-edge/agent.toml")
DEFAULT_IDENTITY = Path("/var/lib/autoglm-edge/identity")


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every step.")] = False,
) -> None:
    """Run the agent until SIGTERM or Ctrl-C."""
    import asyncio
    import faulthandler

    from autoglm_edge_agent.app import Agent
    from autoglm_edge_agent.config_file import load_config

    faulthandler.enable()  # where it hangs when the service manager ends it with SIGABRT
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    loaded = load_config(config, unidentified=True)  # what is here serves, whoever we are

    async def run_agent() -> None:
        await Agent(loaded).run()

    asyncio.run(run_agent())


@app.command()
def enrol(
    claim: Annotated[Path, typer.Option(help="The claim's file, of `autoglm-edge fleet claim create`.")],
    identity: Annotated[
        Path, typer.Option(help="Folder for the identity; where there is one already nothing is done.")
    ] = DEFAULT_IDENTITY,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", min=1, help="Give up after so many seconds; else it waits for days.")
    ] = None,
) -> None:
    """Make this board a device of a fleet: a key of its own, a certificate for it, and where it belongs.

    Exit code 3: the fleet refuses it, as when the claim is used or has expired.
    """
    import asyncio

    from autoglm_edge_agent.enrolment.enrol import enrol as enrol_board
    from autoglm_edge_agent.enrolment.enrol import read_or_lost
    from autoglm_edge_agent.enrolment.identity import IdentityFolder
    from autoglm_edge_protocol.claims import read_claim
    from autoglm_edge_protocol.durable import Disk
    from autoglm_edge_protocol.limits import LIMITS

    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    folder = IdentityFolder(identity, Disk())

    def say(line: str) -> None:
        typer.echo(f"autoglm-edge-agent: {line}", err=True)

    known = read_or_lost(folder)
    if known is None:
        with claim.open("rb") as file:
            given = read_claim(file.read(LIMITS.claim_bytes + 1))
        known = asyncio.run(enrol_board(given, folder, say, timeout_s))
    typer.echo(f"device {known.device} of fleet {known.fleet}, broker {known.broker_url}")


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Read the configuration and say what is wrong with it, without starting anything."""
    from autoglm_edge_agent.config_file import load_config

    loaded = load_config(config)
    typer.echo(f"{config} is right: device {loaded.device.name} of fleet {loaded.device.fleet} at {loaded.broker.url}")


@app.command()
def update(
    folder: Annotated[
        Path, typer.Option("--from", help="The folder, such as a USB stick; docs/agent.md says what is in it.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the update's end.")] = 600.0,
) -> None:
    """Let the running agent take an update from a folder: same signatures, no network.

    Exit code 1: it was refused or has failed; the line says why.
    """
    from autoglm_edge_agent.config_file import load_config
    from autoglm_edge_agent.trust.stick import update_from

    loaded = load_config(config)
    result = update_from(loaded.storage.directory, loaded.device.name, folder, timeout_s)
    if result.phase != "confirmed":
        reason = f"{result.reason.message} ({result.reason.code})" if result.reason else "no reason was given"
        typer.echo(f"autoglm-edge-agent: refused: {reason}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{result.bundle} serves" if result.bundle else "no model is desired any more")


@app.command()
def serve(
    bundle: Annotated[Path, typer.Argument(help="A bundle: its directory, or the packed file.")],
    http: Annotated[
        str, typer.Option(help="Address for HTTP; port 0 takes a free one, empty: none.")
    ] = "127.0.0.1:8000",
    socket: Annotated[Path | None, typer.Option(help="Unix socket; the fast path is beside it, as .fast.")] = None,
    grpc: Annotated[str | None, typer.Option(help="Address for gRPC; needs the extra `grpc`.")] = None,
    variant: Annotated[str | None, typer.Option(help="The variant to serve; else the fastest that fits.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of the runtime.")] = 1,
    max_batch: Annotated[
        int, typer.Option(min=1, max=256, help="How many requests of the lowest priority may run together.")
    ] = 1,
    lease: Annotated[
        Path | None, typer.Option(help="A file that commands for several models on one accelerator share.")
    ] = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="Keep a second worker ready, for when the first one dies.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="First try each runtime, provider and number of threads here, and serve the best; once."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say where it serves as one line of JSON.")] = False,
) -> None:
    """Serve a bundle to applications on this board, without a fleet or a broker, until Ctrl-C.

    The golden set is replayed first. Clients: any of the Open Inference Protocol v2 (tritonclient, curl), and
    autoglm_edge_agent.client for the fast path; docs/inference.md tells more.
    """
    import asyncio

    from autoglm_edge_agent.config import serving_section
    from autoglm_edge_agent.serve import Measuring, identify
    from autoglm_edge_agent.serve import serve as serve_bundle
    from autoglm_edge_protocol.bundle import opened

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    section = serving_section(
        socket,
        http=http or None,
        grpc=grpc,
        threads=threads,
        max_batch=max_batch,
        lease_file=lease,
        standby=standby,
    )
    with opened(bundle) as directory:
        variants = identify(directory, variant, measures=measure)
        measuring = Measuring(directory, _cache() / "probes", _tell_measured) if measure else None

        def ready(installed: Installed, addresses: tuple[str, ...]) -> None:
            if as_json:
                served = {"bundle": str(installed.bundle.id), "variant": installed.variant, "endpoints": addresses}
                typer.echo(json.dumps(served))
            else:
                typer.echo(f"{installed.bundle.id} ({installed.variant}) on {', '.join(addresses)}; Ctrl-C ends it")
            sys.stdout.flush()

        asyncio.run(serve_bundle(directory, variants, section, ready, measuring))


def _cache() -> Path:
    """Where a user's programs keep what they can find out again (XDG Base Directory Specification)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / "autoglm-edge-agent"


def _tell_measured(installed: Installed, found: Measured) -> None:
    """One line for each way that was tried, while it goes on."""
    if found.figures is None:
        told = f"out: {found.disqualified}"
    else:
        told = f"{found.figures.latency_p50_us / 1000:.3f} ms a run, {found.figures.cpu_us / 1000:.3f} ms of processor"
    typer.echo(f"{installed.variant}: {found.plan}: {told}", err=True)


@app.command()
def facts() -> None:
    """Print what the agent sees of this board, as JSON."""
    from autoglm_edge_agent.board import read_facts

    typer.echo(json.dumps(read_facts().model_dump(mode="json"), indent=2))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    root: Annotated[Path, typer.Option(hidden=True, help="Read the board's files below this folder.")] = Path("/"),
) -> None:
    """Say what this board is, how it fares and what its runtimes can really do; each of them is tried."""
    import asyncio

    from autoglm_edge_agent.doctor.examination import examine
    from autoglm_edge_agent.doctor.table import table

    found = asyncio.run(examine(root))
    typer.echo(found.model_dump_json(indent=2) if as_json else table(found))


@app.command()
def devices(
    root: Annotated[Path, typer.Option(hidden=True, help="Read the board's files below this folder.")] = Path("/"),
) -> None:
    """Say which drop-ins of the unit open the accelerators of this board; see docs/service.md."""
    from autoglm_edge_agent.systemd.devices import drop_ins_of

    typer.echo(" ".join(drop_ins_of(root)) or "none")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        typer.echo(f"autoglm-edge-agent: {error}", err=True)
        sys.exit(code)


def _exit_code(error: Exception) -> int | None:
    """Return what an error that was foreseen ends the command with; None for a fault of ours."""
    from autoglm_edge_agent.errors import AgentError, Denied
    from autoglm_edge_protocol.errors import ProtocolError

    if isinstance(error, Denied):
        return 3
    return 1 if isinstance(error, (AgentError, ProtocolError, OSError)) else None
