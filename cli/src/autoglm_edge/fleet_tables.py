"""Tables of the fleet's commands. Text that came from devices is made printable and never read as markup."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autoglm_edge_fleet.bundles import PublishedBundle
from autoglm_edge_fleet.deployments import Deployment
from autoglm_edge_fleet.fleet import DeviceStatus
from autoglm_edge_fleet.printable import printable
from autoglm_edge_fleet.telemetry import TelemetrySummary
from autoglm_edge_protocol.deployment import Reason

_COLOURS = {"confirmed": "green", "failed": "red", "superseded": "yellow"}


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def bundles_table(bundles: Iterable[PublishedBundle]) -> Table:
    """Return one row per published bundle."""
    table = _table("bundle", "size", "variants", "published", "description")
    for each in bundles:
        published = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.published_at))
        text = Text(printable(each.description, 60))
        table.add_row(str(each.id), _size(each.size_bytes), " ".join(each.variants), published, text)
    return table


def devices_table(devices: Iterable[DeviceStatus]) -> Table:
    """Return one row per device."""
    table = _table("device", "online", "runs", "variant", "deployment", "seen", "agent", "board")
    for each in devices:
        device, facts = each.device, each.device.report.facts if each.device.report else None
        current = device.current
        table.add_row(
            device.name,
            Text("yes", "green") if device.online else Text("no", "red"),
            str(current.bundle.id) if current else "-",
            Text(printable(current.variant, 40)) if current else "-",
            _state(each.deployment) if each.deployment else "-",
            _ago(device.last_seen_at),
            Text(printable(facts.agent_version, 40)) if facts else "-",
            Text(printable(facts.board, 60)) if facts else "-",
        )
    return table


def status_table(devices: Iterable[DeviceStatus]) -> Table:
    """Return one row per device, with its deployment and its telemetry."""
    table = _table("device", "deployment", "phase", "sent", "asked", "bad", "p50", "p99", "cpu", "mem", "temp")
    for each in devices:
        deployment = each.deployment
        table.add_row(
            Text(each.device.name, "green" if each.device.online else "red"),
            f"{deployment.bundle} #{deployment.generation}" if deployment else "-",
            _state(deployment) if deployment else "-",
            _size(each.device.sent_bytes),
            *_figures(each.telemetry),
        )
    return table


def deployments_table(deployments: Iterable[Deployment]) -> Table:
    """Return one row per deployment with a progress bar, for a live display."""
    table = _table("device", "bundle", "", "", "phase")
    for each in deployments:
        bar = ProgressBar(total=1.0, completed=each.fraction, width=24)
        table.add_row(each.device, str(each.bundle), bar, f"{each.fraction:4.0%}", _phase(each))
    return table


def reasons(devices: Iterable[DeviceStatus]) -> list[Text]:
    """Return the lines of deployments and of trust that have something to say, for below a table."""
    lines = []
    for each in devices:
        if each.deployment and each.deployment.reason:
            lines.append(_reason_line(each.device.name, "", each.deployment.reason))
        trust = each.device.report.trust if each.device.report else None
        if trust and trust.mode != "signed":
            what = (
                "checks NO signature" if trust.mode == "insecure" else "was given no root.json and refuses everything"
            )
            lines.append(Text(f"{each.device.name}: {what}"))
        if trust and trust.refusal:
            lines.append(_reason_line(each.device.name, "turned away what it was sent: ", trust.refusal))
    return lines


def _reason_line(device: str, what: str, reason: Reason) -> Text:
    return Text(f"{device}: {what}{printable(reason.message, 400)} ({reason.code})")


def _state(deployment: Deployment) -> Text:
    share = "" if deployment.ended or not deployment.fraction else f" {deployment.fraction:.0%}"
    return Text(f"{printable(deployment.phase, 40)}{share}", _COLOURS.get(deployment.phase, ""), no_wrap=True)


def _phase(deployment: Deployment) -> Text:
    reason = f": {printable(deployment.reason.message, 120)} ({deployment.reason.code})" if deployment.reason else ""
    return _state(deployment).append(reason)


def _figures(telemetry: TelemetrySummary | None) -> tuple[str, ...]:
    if telemetry is None:
        return ("-",) * 7
    newest = telemetry.newest
    memory = newest.memory_used_bytes if newest else None
    return (
        f"{telemetry.requests:,}",
        f"{telemetry.errors:,}",
        _milliseconds(telemetry.p50_us),
        _milliseconds(telemetry.p99_us),
        f"{newest.cpu_percent:.0f} %" if newest and newest.cpu_percent is not None else "-",
        _size(memory) if memory is not None else "-",
        f"{newest.temperature_c:.0f} °C" if newest and newest.temperature_c is not None else "-",
    )


def _milliseconds(value_us: float | None) -> str:
    return "-" if value_us is None else f"{value_us / 1000:.2f} ms"


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _ago(at: float | None) -> str:
    if at is None:
        return "never"
    seconds = max(0.0, time.time() - at)
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
