"""The process in which one session lives: `python -m autoglm_edge_converter.bench.worker ORDER.json`.

The order names the model, runtime, provider, threads, inputs and libraries of custom operators. The process
answers one JSON line when it has loaded, then one for each line of its standard input, a number of runs to make, until
the input ends. That a provider is listed by the runtime says only that it was built in: falling back to the CPU is
forbidden here, so that a provider which cannot run the model is an error and no wrong figure.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from autoglm_edge_converter.bench.providers import XNNPACK
from autoglm_edge_converter.runners import Runner
from autoglm_edge_converter.runners.onnx import OnnxRunner, session_options
from autoglm_edge_converter.targets import LITERT
from autoglm_edge_converter.tensors import Feed
from autoglm_edge_converter.worker import peak_rss_bytes

CPU = "CPUExecutionProvider"
WARM_UP_RUNS = 3
_RUNTIME_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


def open_strictly(order: dict[str, Any]) -> Runner:
    """Open the session that the order describes, on its provider and on nothing else.

    Raises RuntimeError when the runtime fell back to another provider; its own errors pass through.
    """
    return _open_litert(order) if order["runtime"] == LITERT else _open_onnx(order)


def _open_litert(order: dict[str, Any]) -> Runner:
    from autoglm_edge_converter.runners.tflite import delegated, open_tflite

    runner = open_tflite(Path(order["model"]), order["threads"], xnnpack=order["provider"] == XNNPACK)
    if order["provider"] == XNNPACK and not delegated(Path(order["model"])):
        raise RuntimeError("XNNPACK takes none of the operators of this file")
    return runner


def _open_onnx(order: dict[str, Any]) -> Runner:
    options = session_options(order["threads"])
    options.log_severity_level = 4  # a provider that cannot run is an answer here, not something to complain of
    if order["provider"] != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for library in order["ops"]:
        options.register_custom_ops_library(library)
    session = ort.InferenceSession(order["model"], options, providers=[order["provider"]])
    session.disable_fallback()
    if session.get_providers()[0] != order["provider"]:
        raise RuntimeError(f"{order['provider']} cannot be used: the runtime fell back to {session.get_providers()[0]}")
    return OnnxRunner(session)


def read_feeds(path: Path) -> list[Feed]:
    """Read the inputs, arrays named `SAMPLE.INPUT`."""
    feeds: dict[int, Feed] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            number, _, name = key.partition(".")
            feeds.setdefault(int(number), {})[name] = archive[key]
    return [feeds[number] for number in sorted(feeds)]


def make_runs(runner: Runner, feeds: list[Feed], count: int, first: int) -> dict[str, Any]:
    """Run so many times, over the inputs in turn, and return the times: each run's, and the processor's mean."""
    wall_us = []
    cpu_ns = time.process_time_ns()
    for number in range(first, first + count):
        started = time.perf_counter_ns()
        runner.run(feeds[number % len(feeds)])
        wall_us.append((time.perf_counter_ns() - started) / 1000)
    return {"wall_us": wall_us, "cpu_us": (time.process_time_ns() - cpu_ns) / 1000 / count}


def serve(order: dict[str, Any]) -> None:
    """Load, then make runs as asked until standard input ends."""
    # The runtime prints to standard output now and then; the answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        feeds = read_feeds(Path(order["inputs"]))
        started = time.perf_counter_ns()
        runner = open_strictly(order)
        load_us = (time.perf_counter_ns() - started) / 1000
        make_runs(runner, feeds, WARM_UP_RUNS, 0)
        say({"load_us": load_us})
        done = 0
        for line in sys.stdin:
            answer = make_runs(runner, feeds, int(line), done)
            done += int(line)
            say(answer | {"peak_rss_bytes": peak_rss_bytes()})
    except Exception as error:
        line = (str(error) or type(error).__name__).strip().splitlines()[0]
        say({"error": _RUNTIME_PREFIX.sub("", line)[:300]})


if __name__ == "__main__":
    try:
        serve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except KeyboardInterrupt:
        sys.exit(130)
