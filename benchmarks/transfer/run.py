"""Measure transfers over MQTT against nginx, and one copy for many against one each; write RESULTS.md.

    .venv/bin/python -m benchmarks.transfer.run [--cases pull,fan-out] [--rounds 5] [--output FILE]

Everything that is compared runs in turns in one run, on the loopback interface of one machine: broker, fleet and
devices share its processors.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from statistics import median

import urllib3
from benchmarks.results import write_section
from benchmarks.transfer.part import INTRODUCTION, PART
from benchmarks.transfer.stage import Measured, Stage
from benchmarks.transfer.web import nginx, version
from tests.fakes.proxies import Proxy

from autoglm_edge_converter.machine import machine_name
from autoglm_edge_fleet.repository import REPOSITORY_FOLDER
from autoglm_edge_protocol.bundle import read_manifest

PULL_BYTES = 100_000_000
COHORT_BYTES = 50_000_000
COHORT = 20
SLOW_BYTES_PER_S = 1_500_000


def pull(directory: Path, rounds: int) -> str:
    """One device against a web client, 100 MB."""
    stage = Stage(directory, PULL_BYTES)
    with stage.run() as served:
        manifest = read_manifest(directory / "bundle")
        model = next(entry for entry in manifest.files if entry.size_bytes == PULL_BYTES)
        repository = directory / "fleet" / REPOSITORY_FOLDER
        ours: list[Measured] = []
        web: list[list[float]] = []
        with nginx(directory / "nginx", repository) as url:
            address = f"{url}/objects/{model.sha256[:2]}/{model.sha256}"
            for _ in range(rounds):
                command = [sys.executable, "-m", "benchmarks.transfer.web", address, str(directory / "x"), model.sha256]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                web.append([float(each) for each in said.split()])
                ours.append(served.measure({"dev0": served.broker.url}, share=True, processes=1))
    careful_s, careful_cpu_s, careless_s, careless_cpu_s = (median(column) for column in zip(*web, strict=True))
    rows = [
        ("nginx and urllib3, thrown away", careless_s, careless_cpu_s, None),
        ("nginx and urllib3, written, hashed and synced", careful_s, careful_cpu_s, None),
        (
            "autoglm-edge through Mosquitto",
            _median(ours, lambda m: m.took_s["dev0"]),
            _median(ours, lambda m: m.device_cpu_s),
            (_median(ours, lambda m: m.fleet_cpu_s), _median(ours, lambda m: m.broker_cpu_s)),
        ),
    ]
    table = [
        f"| {name} | {PULL_BYTES / 1e6 / took_s:.0f} MB/s | {careful_s / took_s:.0%} | {careless_s / took_s:.0%} "
        f"| {cpu_s:.2f} s | {' | '.join(f'{each:.2f} s' for each in others) if others else '- | -'} |"
        for name, took_s, cpu_s, others in rows
    ]
    head = "| 100 MB | throughput | of the careful client | of the careless one | client's CPU | fleet's | broker's |"
    peer = f"The peer: nginx {version()}, one worker, sendfile, no TLS; urllib3 {urllib3.__version__}, pieces of 1 MiB."
    return "\n".join([head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |", *table, "", peer])


def fan_out(directory: Path, rounds: int) -> str:
    """Twenty devices: one copy each, one copy for all, and two of them slow."""
    stage = Stage(directory, COHORT_BYTES)
    results: dict[str, list[Measured]] = {"each its own copy": [], "one copy for all": [], "two of them slow": []}
    names = [f"dev{number}" for number in range(COHORT)]
    with stage.run() as served, contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(served.broker.port)) for _ in range(2)]
        for proxy in proxies:
            proxy.throttle(SLOW_BYTES_PER_S)
        fast = dict.fromkeys(names, served.broker.url)
        slow = fast | {name: proxy.url for name, proxy in zip(names, proxies, strict=False)}
        for _ in range(rounds):
            results["each its own copy"].append(served.measure(fast, share=False))
            results["one copy for all"].append(served.measure(fast, share=True))
            results["two of them slow"].append(served.measure(slow, share=True))
    bundle = COHORT_BYTES
    quick = names[2:]
    base = _median(results["one copy for all"], lambda m: median(m.took_s[name] for name in quick))
    unicast_cpu = _median(results["each its own copy"], lambda m: m.fleet_cpu_s)
    lines = [
        f"| {COHORT} devices, 50 MB | egress of the fleet | its CPU | it grew by | median fast device | slowest "
        "| broker's CPU | it grew by |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, measured in results.items():
        cpu = _median(measured, lambda m: m.fleet_cpu_s)
        took = _median(measured, lambda m: median(m.took_s[each] for each in quick))
        lines.append(
            f"| {name} | {_median(measured, lambda m: m.egress_bytes) / bundle:.3f} x the bundle "
            f"| {cpu:.2f} s ({cpu / unicast_cpu:.0%}) | {_median(measured, lambda m: m.fleet_grew_bytes) / 1e6:.0f} MB "
            f"| {took:.1f} s ({took / base:.2f}x) "
            f"| {_median(measured, lambda m: max(m.took_s.values())):.1f} s "
            f"| {_median(measured, lambda m: m.broker_cpu_s):.2f} s "
            f"| {_median(measured, lambda m: m.broker_grew_bytes) / 1e6:.0f} MB |"
        )
    lines += ["", f"Slow: {SLOW_BYTES_PER_S / 1e6} MB/s towards the device, through a proxy."]
    return "\n".join(lines)


def _median(measured: Sequence[Measured], of: Callable[[Measured], float]) -> float:
    return median(of(each) for each in measured)


CASES: dict[str, tuple[str, Callable[[Path, int], str]]] = {
    "pull": ("One device pulls", pull),
    "fan-out": ("A cohort", fan_out),
}


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[1] / "RESULTS.md")
    arguments = parser.parse_args()
    for case in arguments.cases.split(","):
        section, measure = CASES[case]
        with tempfile.TemporaryDirectory() as folder:
            table = measure(Path(folder), arguments.rounds)
        print(f"{section}\n{table}\n", flush=True)
        text = f"{date.today().isoformat()}, {machine_name()}; medians of {arguments.rounds} rounds.\n\n{table}"
        write_section(arguments.output, PART, INTRODUCTION, section, text)


if __name__ == "__main__":
    main()
