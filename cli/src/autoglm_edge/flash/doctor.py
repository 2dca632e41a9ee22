"""`autoglm-edge flash doctor`: what is on a card or in an image."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from autoglm_edge.console import EXIT_FAILED, err, out, print_json
from autoglm_edge.flash.bars import Bars
from autoglm_edge_firmware.doctor import examine
from autoglm_edge_firmware.doctor.findings import Examination


def doctor(
    card: Annotated[Path, typer.Argument(metavar="CARD_OR_IMG", help="A card, an image, or the folder of a root.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for scripts.")] = False,
) -> None:
    """Say what is on a card or in an image, without booting it: agent, fleet, claim, identity, bundles. No secrets.

    Exit code 0: nothing is wrong with it; 1: something is.
    """
    with Bars() as bars:
        found = examine(card, progress=bars.of(card.name))
    if as_json:
        print_json(found.as_json())
    else:
        for name, value in _rows(found):
            out.print(f"{name:10} {value}", markup=False, soft_wrap=True)
        for problem in found.problems:
            err.print(f"problem: {problem}", style="yellow", markup=False, soft_wrap=True)
    if found.problems:
        raise typer.Exit(EXIT_FAILED)


def _rows(found: Examination) -> Iterator[tuple[str, str]]:
    yield "system", ", ".join(filter(None, (found.system, found.architecture))) or "unknown"
    yield "booted", "yes" if found.has_booted else "not yet"
    if found.host_name:
        yield "host name", found.host_name
    waits = "" if found.agent_is_installed else " (waits for the first boot)"
    yield "agent", f"{found.agent}{waits}" if found.agent else "none"
    yield "claim", _claim(found)
    if found.identity:
        yield "device", f"{found.identity.device} of {found.identity.fleet}"
    if found.bundles:
        unproven = " (on probation)" if found.bundles.unproven else ""
        yield "model", f"{found.bundles.current or 'none'}{unproven}"
        for name, bundle in (("before", found.bundles.previous), ("staged", found.bundles.staging)):
            if bundle:
                yield name, bundle
    for each in found.partitions:
        size = f"{each.size_bytes / (1 << 20):.0f} MiB at {each.start_bytes / (1 << 20):.0f}"
        yield f"part {each.number}", f"{each.file_system}, {size}, {each.state or 'not looked at'}"


def _claim(found: Examination) -> str:
    if found.claim is None:
        return found.claim_state
    day = time.strftime("%Y-%m-%d", time.gmtime(found.claim.expires_at))
    return f"{found.claim_state}: {found.claim.claim_id} of {found.claim.fleet}, until {day}"
