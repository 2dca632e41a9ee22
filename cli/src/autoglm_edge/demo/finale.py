"""The tables at the end of the demonstration."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from autoglm_edge.demo.play import Run
from autoglm_edge_fleet.deployments import Deployment
from autoglm_edge_protocol.manifest import Variant


def show(run: Run, console: Console) -> None:
    """Print what the demonstration found."""
    console.print()
    console.print(_variants_table(run))
    console.print(_deployments_table(run))
    console.print(_telemetry_table(run))
    reason = run.acts[2][0].reason
    if reason:
        text = f"The damaged bundle was refused by every device ({reason.code}): {reason.message}"
        console.print(text, markup=False, soft_wrap=True)
    reason = run.acts[3][0].reason
    if reason:
        text = f"The mistaken bundle served, was watched, and every device went back ({reason.code}): {reason.message}"
        console.print(text, markup=False, soft_wrap=True)
    console.print(f"Refused by the devices: {'; '.join(each.attack for each in run.attacks)}", soft_wrap=True)
    failed = len(run.traffic.failures)
    colour = "red" if failed else "green"
    console.print(
        f"[{colour}]{run.traffic.requests:,} files classified by the devices meanwhile, {failed} requests failed[/]"
    )
    ways = (f"{way}: {np.median(times):.1f} ms" for way, times in sorted(run.traffic.ways_ms.items()))
    console.print(f"  median of a request, {'; '.join(ways)}")
    for failure in run.traffic.failures[:5]:
        console.print(f"  {failure}", markup=False)
    console.print(f"Report: {run.conversion.directory / 'report.html'}", soft_wrap=True)


def summary(run: Run) -> dict[str, Any]:
    """Return the same for scripts."""
    return {
        "broker": run.broker,
        "variants": [_figures(run, variant, version) for variant, version in _rows(run)],
        "deployments": [
            {
                "bundle": str(each.bundle),
                "device": each.device,
                "phase": each.phase,
                "fetched_bytes": each.fetched_bytes,
                "total_bytes": each.total_bytes,
                "reason": each.reason.model_dump() if each.reason else None,
            }
            for act in run.acts
            for each in act
        ],
        "sent_bytes": run.sent_bytes,
        "telemetry": {
            each.device.name: {"requests": each.telemetry.requests, "errors": each.telemetry.errors}
            for each in run.devices
            if each.telemetry
        },
        "attacks": [
            {"attack": each.attack, "device": each.device, "reason": each.reason.model_dump()} for each in run.attacks
        ],
        "requests": run.traffic.requests,
        "requests_by_way": {way: len(times) for way, times in sorted(run.traffic.ways_ms.items())},
        "failed_requests": len(run.traffic.failures),
        "report": str(run.conversion.directory / "report.html"),
    }


def _rows(run: Run) -> list[tuple[Variant, str]]:
    """Return each variant that devices served, with the version of the bundle that they served it from."""
    manifest = run.conversion.manifest
    float_variant = next(v for v in manifest.variants if v.precision == "fp32")
    small = [v for v in manifest.variants if v.precision != "fp32"]
    # Where several were worth shipping, devices take the fastest that fits.
    small_variant = next((v for v in small if f"1.1.0 {v.id}" in run.traffic.answers), small[0])
    return [(float_variant, "1.0.0"), (small_variant, "1.1.0")]


def _figures(run: Run, variant: Variant, version: str) -> dict[str, Any]:
    answers = run.traffic.answers[f"{version} {variant.id}"]
    manifest = run.conversion.manifest
    return {
        "bundle": f"{manifest.name}@{version}",
        "variant": variant.id,
        "precision": variant.precision,
        "size_bytes": sum(manifest.file(path).size_bytes for path in variant.files),
        "run_cpu_us": variant.latency.cpu_us or variant.latency.median_us,
        "speedup": variant.latency.speedup,
        "request_p50_ms": answers.p50_ms,
        "agreement_converter": variant.quality.value,
        "agreement_devices": answers.agreement,
        "accuracy_devices": answers.accuracy(run.asked),
        "files": len(answers.predicted),
        "requests": len(answers.latencies_ms),
    }


def _variants_table(run: Run) -> Table:
    table = Table(title="What the devices served", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in ("size", "CPU/run", "speed", "p50", "agreement", "devices", "accuracy"):
        table.add_column(column, justify="right", no_wrap=True)
    for variant, version in _rows(run):
        row = _figures(run, variant, version)
        table.add_row(
            variant.precision.upper(),
            _size(row["size_bytes"]),
            f"{row['run_cpu_us'] / 1000:.2f} ms",
            f"{row['speedup']:.2f}x",
            f"{row['request_p50_ms']:.1f} ms",
            f"{row['agreement_converter']:.1%}",
            f"{row['agreement_devices']:.1%}",
            f"{row['accuracy_devices']:.1%}",
        )
    files = min(len(run.traffic.answers[f"{version} {variant.id}"].predicted) for variant, version in _rows(run))
    table.caption = (
        f"p50: of a request as the application sees it; agreement: with the original model, on files held back at "
        f"conversion; devices: on {files} others that they were asked about; accuracy: by the files' names."
    )
    table.caption_justify = "left"
    return table


def _deployments_table(run: Run) -> Table:
    table = Table(
        title=f"What went over MQTT ({run.broker}, {len(run.acts[0])} devices)",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("bundle", no_wrap=True)
    for column in ("needed", "fetched", "sent in all"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for act in run.acts:
        version = act[0].bundle.version
        confirmed = sum(each.phase == "confirmed" for each in act)
        table.add_row(
            str(act[0].bundle),
            _size(act[0].total_bytes),
            _size(act[0].fetched_bytes),
            _size(run.sent_bytes[version]),
            f"[green]confirmed by {confirmed}[/]" if confirmed else f"[yellow]{_end(act[0])} by {len(act)}[/]",
        )
    return table


def _end(failed: Deployment) -> str:
    watched = failed.reason is not None and failed.reason.code.startswith("probation-")
    return "taken back" if watched else "refused"


def _telemetry_table(run: Run) -> Table:
    table = Table(title="What the devices measured themselves", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("device", no_wrap=True)
    for column in ("requests", "errors", "p50", "p99", "CPU", "memory", "worker"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in run.devices:
        telemetry = each.telemetry
        if telemetry is None or telemetry.newest is None:
            table.add_row(each.device.name, *["-"] * 7)
            continue
        newest = telemetry.newest
        table.add_row(
            each.device.name,
            f"{telemetry.requests:,}",
            f"{telemetry.errors}",
            f"{(telemetry.p50_us or 0) / 1000:.1f} ms",
            f"{(telemetry.p99_us or 0) / 1000:.1f} ms",
            f"{newest.cpu_percent or 0:.0f} %",
            _size(newest.agent_rss_bytes or 0),
            _size(newest.worker_rss_bytes or 0),
        )
    table.caption = "p50, p99: from the request to its result, in the worker. memory: of the agent's main process."
    table.caption_justify = "left"
    return table


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"
