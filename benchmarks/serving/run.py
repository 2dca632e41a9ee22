"""Measure what serving adds to a raw run of the model, against MLServer, and what the agent holds and loses.

    .venv/bin/python -m benchmarks.serving.run [--rounds 40] [--cache DIR] [--output FILE] [--no-peer]

All ways are asked in turns, so that what the machine does meanwhile happens to all of them. "added" is the median of a
way minus the median of `InferenceSession.run` on the same input in the same rounds, in this process.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import http.client
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from benchmarks.results import write_section
from benchmarks.serving import clients
from benchmarks.serving.faults import Faults, provoke
from benchmarks.serving.servers import mlserver, ours
from tests.fakes.model_bundles import make_model_bundle

from autoglm_edge_converter.machine import machine_name

HERE = Path(__file__).resolve().parent
PART = "Serving"
INTRODUCTION = """
    .venv/bin/python -m benchmarks.serving.run

What a request costs above `InferenceSession.run` on the same input, in microseconds: medians of requests in turns, one
client, one thread of the runtime. The raw run is measured between the others, so that it suffers the same interruptions
and cold caches. HTTP is asked over a raw socket, so that the server is measured and not a client library; JSON goes
through `http.client` to both servers, its text made beforehand. MLServer's HTTP takes numbers as JSON alone
(SeldonIO/MLServer#324): the ratio to our binary form is what changes for an application that moves here, that of JSON
to JSON is the last one of each line. All is compiled to byte code beforehand, as on a board, and nothing else shares
pages of memory with what is measured.
"""
TURN_S = 0.05
"""For how long one way is asked in each round: two processes that have just shared a processor are spread by the kernel
within some milliseconds, which must not be most of a turn."""
LEAST = 5
"""Requests in a turn."""
WIDTHS = {"256 B": 64, "600 KB": 150_000}


@dataclass
class Way:
    """One way to ask."""

    name: str
    ask: clients.Ask
    times_us: list[float] = field(default_factory=list)

    def measure(self, expected: clients.Array) -> None:
        """Ask for a turn; what comes back must be right."""
        assert np.allclose(self.ask().reshape(expected.shape), expected, rtol=1e-3, atol=1e-3), self.name
        until, asked = time.perf_counter() + TURN_S, 0
        while asked < LEAST or time.perf_counter() < until:
            began = time.perf_counter()
            self.ask()
            self.times_us.append((time.perf_counter() - began) * 1e6)
            asked += 1


def measure(width: int, rounds: int, cache: Path, *, peer: bool) -> list[Way]:
    """Measure all ways for inputs of so many floats; the first is the raw run."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serving-")))
        bundle = make_model_bundle(folder / "bundle", width=width)
        model = bundle.directory / "variants" / "fp32" / "model.onnx"
        x = np.random.default_rng(0).standard_normal((1, width), dtype=np.float32)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        served = stack.enter_context(ours(bundle.directory, folder))
        ways = [
            Way("InferenceSession.run", lambda: np.asarray(session.run(["y"], {"x": x})[0])),
            Way("fast path, in place", clients.fast_path(served.fast, x)),
            Way("fast path, copying", clients.fast_path_copying(served.fast, x)),
            Way("HTTP binary, Unix socket", clients.binary(served.socket, x, "linear")),
            Way("HTTP JSON, Unix socket", clients.rest_json(clients.UnixConnection(served.socket), x, "linear")),
        ]
        if peer:
            for workers in (0, 1):
                port = stack.enter_context(mlserver(model, folder / f"mlserver-{workers}", cache, workers))
                connection = http.client.HTTPConnection("127.0.0.1", port)
                name = "MLServer REST JSON, " + ("in process" if workers == 0 else "one worker")
                ways.append(Way(name, clients.rest_json(connection, x, "model")))
        for _ in range(rounds):
            for way in ways:
                way.measure(bundle.expected(x))
        return ways


def table(found: Mapping[str, Sequence[Way]]) -> str:
    """Return the table of all ways and sizes."""
    lines = ["| way | " + " | ".join(f"{size}: p50 | added" for size in found) + " |"]
    lines.append("| --- |" + " ---: | ---: |" * len(found))
    for number, way in enumerate(next(iter(found.values()))):
        cells = []
        for ways in found.values():
            p50, raw = median(ways[number].times_us), median(ways[0].times_us)
            cells += [f"{p50:,.0f}", "-" if number == 0 else f"+{p50 - raw:,.0f}"]
        lines.append(f"| {way.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(found: Mapping[str, Sequence[Way]]) -> str:
    """Return how many times more MLServer adds."""
    lines = []
    for size, ways in found.items():
        raw = median(ways[0].times_us)
        added = {way.name: max(1.0, median(way.times_us) - raw) for way in ways[1:]}
        peers = {name: value for name, value in added.items() if name.startswith("MLServer")}
        for name, value in peers.items():
            texts = [f"{value / mine:.0f} x {way}" for way, mine in added.items() if not way.startswith("MLServer")]
            lines.append(f"- {size}: {name} adds " + ", ".join(texts))
    return "\n".join(lines)


def held(faults: Faults, ready: Faults) -> str:
    """Return the lines about memory, gaps and losses."""
    return "\n".join(
        [
            f"- memory (PSS): agent {faults.agent_mb:.0f} MB, its worker with a small model {faults.worker_mb:.0f} MB",
            f"- gap after a worker's SIGSEGV: {faults.gap_ms:.0f} ms, median of {faults.kills}; with a worker that "
            f"stands in {ready.gap_ms:.0f} ms, median of {ready.kills}",
            f"- lost over {faults.activations} replacements and {faults.kills} kills of the worker under load: "
            f"{faults.lost} of {faults.answered + faults.lost:,} requests over the fast path; "
            f"{faults.lost_http} of {faults.answered_http + faults.lost_http:,} over HTTP, asked again where the "
            "connection broke",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "autoglm-edge-benchmark")
    parser.add_argument("--output", type=Path, default=HERE.parent / "RESULTS.md")
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in ("agent", "protocol"):
        compileall.compile_dir(HERE.parents[1] / name / "src", quiet=1)
    try:
        found = {
            size: measure(width, options.rounds, options.cache, peer=not options.no_peer)
            for size, width in WIDTHS.items()
        }
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"MLServer cannot be installed here ({error}); --no-peer measures without it") from None
    faults, ready = provoke(), provoke(activations=0, kills=20, standby=True)
    text = "\n\n".join(
        filter(
            None,
            [
                f"{date.today().isoformat()}, {machine_name()}; onnxruntime {onnxruntime.__version__}.",
                table(found),
                ratios(found),
                held(faults, ready),
            ],
        )
    )
    print(text)
    write_section(options.output, PART, INTRODUCTION, "One client", text)


if __name__ == "__main__":
    main()
