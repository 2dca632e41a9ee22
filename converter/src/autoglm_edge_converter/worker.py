"""The process in which models run: `python -m autoglm_edge_converter.worker SAMPLES.npz`.

Reads one JSON request a line on standard input and answers one JSON line each on what was standard output when it
started, until the input ends. A request that fails is answered with its error; a crash of the runtime ends this
process and nothing else (see `laboratory`, the other side).

    {"do": "run", "model": PATH, "samples": [0, 3], "outputs": PATH}   answers every output to an .npz;
                                                                       "states": {"state": 1} makes one sequence of
                                                                       the samples, output 1 goes into `state` again
    {"do": "time", "models": [PATH, ...], "samples": [0, 3]}           medians of interleaved runs;
                                                                       "patience": 3 measures three times as long
    {"do": "memory", "model": PATH, "samples": [0]}                    peak resident memory of this process
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoglm_edge_converter.remembering import Remembering, zeros
from autoglm_edge_converter.runners import Runner, open_runner
from autoglm_edge_converter.tensors import Array, Feed

WARM_UP_RUNS = 3
ROUND_S = 0.008
"""A turn of one model: long enough that what the turn before left in the caches does not matter."""
MEASURE_S = 1.0
FEWEST_ROUNDS = 9
MOST_ROUNDS = 40
CLEAR = 0.003
"""Standard error of each median, as a share of it, at which more turns would change no decision and hardly the second
decimal of a speed. A quiet machine has it soon, a busy one takes as long as is allowed."""
TOLD_BY = 15
"""Timings of which the error can be told: that of fewer is small by chance."""


class Feeds:
    """The samples that the laboratory wrote, arrays named `INDEX.INPUT`; each is read when first used, and kept."""

    def __init__(self, path: Path) -> None:
        self._archive = np.load(path, allow_pickle=False)
        self._keys: dict[int, dict[str, str]] = {}
        self._loaded: dict[int, Feed] = {}
        for key in self._archive.files:
            index, _, name = key.partition(".")
            self._keys.setdefault(int(index), {})[name] = key

    def __getitem__(self, index: int) -> Feed:
        if index not in self._loaded:
            self._loaded[index] = {name: self._archive[key] for name, key in self._keys[index].items()}
        return self._loaded[index]


def run(feeds: Feeds, request: dict[str, Any]) -> dict[str, Any]:
    """Run one model over some samples and save its answers, arrays named `SAMPLE.OUTPUT` by position."""
    runner = open_runner(Path(request["model"]))
    states: dict[str, int] = request.get("states", {})
    if states:
        runner = Remembering(runner, states, zeros(feeds[request["samples"][0]], states))
    arrays: dict[str, Array] = {}
    outputs = 0
    for position, index in enumerate(request["samples"]):
        found = runner.run(feeds[index])
        outputs = len(found)
        arrays |= {f"{position}.{number}": np.asarray(output) for number, output in enumerate(found)}
    with Path(request["outputs"]).open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return {"outputs": outputs}


def measure_time(feeds: Feeds, request: dict[str, Any]) -> dict[str, Any]:
    """Time models in turns, so that a change of clock or load meets all of them alike. Microseconds a run."""
    runners = [open_runner(Path(model)) for model in request["models"]]
    chosen = [feeds[index] for index in request["samples"]]
    repeats = [max(1, int(ROUND_S / _warm_up(runner, chosen[0]))) for runner in runners]
    wall: list[list[float]] = [[] for _ in runners]
    cpu: list[list[float]] = [[] for _ in runners]
    patience = float(request.get("patience", 1.0))
    until = time.monotonic() + MEASURE_S * patience * len(runners)
    rounds = 0
    while rounds < FEWEST_ROUNDS * patience or (
        rounds < MOST_ROUNDS * patience and time.monotonic() < until and not are_clear(cpu)
    ):
        feed = chosen[rounds % len(chosen)]
        for number, runner in enumerate(runners):
            runner.run(feed)
            wall_us, cpu_us = _time_runs(runner, feed, repeats[number])
            wall[number].append(wall_us)
            cpu[number].append(cpu_us)
        rounds += 1
    return {
        "wall_us": [statistics.median(t) for t in wall],
        "cpu_us": [statistics.median(t) for t in cpu],
        "noise": [median_error(t) for t in cpu],
    }


def are_clear(timings: Sequence[Sequence[float]]) -> bool:
    """Return whether the medians of all models' timings are known as well as they need be."""
    return all(len(values) >= TOLD_BY and median_error(values) <= CLEAR for values in timings)


def median_error(values: Sequence[float]) -> float:
    """Return the standard error of the median as a share of it, from the median deviation: outliers do not count."""
    middle = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(value - middle) for value in values)
    return 1.2533 * deviation / math.sqrt(len(values)) / middle if middle > 0 else 0.0


def _warm_up(runner: Runner, feed: Feed) -> float:
    started = time.perf_counter()
    for _ in range(WARM_UP_RUNS):
        runner.run(feed)
    return (time.perf_counter() - started) / WARM_UP_RUNS


def _time_runs(runner: Runner, feed: Feed, repeats: int) -> tuple[float, float]:
    wall_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
    for _ in range(repeats):
        runner.run(feed)
    wall_ns, cpu_ns = time.perf_counter_ns() - wall_ns, time.process_time_ns() - cpu_ns
    return wall_ns / 1000 / repeats, cpu_ns / 1000 / repeats


def measure_memory(feeds: Feeds, request: dict[str, Any]) -> dict[str, Any]:
    """Load and run one model; only truthful in a process that did nothing else before."""
    runner = open_runner(Path(request["model"]))
    for index in request["samples"]:
        runner.run(feeds[index])
    return {"peak_rss_bytes": peak_rss_bytes()}


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process."""
    # Not getrusage on Linux: its peak survives exec, so it would be that of the process that started this one.
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    if sys.platform == "win32":
        from autoglm_edge_converter.windows_memory import peak_working_set_bytes

        return peak_working_set_bytes()
    else:
        import resource

        peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak_rss * (1 if sys.platform == "darwin" else 1024)


_REQUESTS: dict[str, Callable[[Feeds, dict[str, Any]], dict[str, Any]]] = {
    "run": run,
    "time": measure_time,
    "memory": measure_memory,
}


def serve(samples: Path) -> None:
    """Answer requests until standard input ends."""
    # The runtime prints to standard output now and then; the answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    feeds = Feeds(samples)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _REQUESTS[request["do"]](feeds, request)
        except Exception as error:
            answer = {"error": (str(error) or type(error).__name__).strip().splitlines()[0][:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    try:
        serve(Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
