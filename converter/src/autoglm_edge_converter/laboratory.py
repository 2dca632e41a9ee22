"""Running models in processes of their own, so that a candidate that crashes is a finding and not the end.

A few workers stay up and keep the samples; one that crashed is started again. Models are run on whichever worker is
free, so threads may ask at once; timing has the machine to itself. What must be measured in a fresh process (memory)
gets one.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from autoglm_edge_converter.cache import Cache, NoCache
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.machine import machine_name, versions
from autoglm_edge_converter.tensors import Array, Feed
from autoglm_edge_protocol.digests import sha256_of_file

Answers = tuple[tuple[Array, ...], ...]
"""Outputs of a model: one tuple per sample, in the order of the model's outputs."""


LEAVING_S = 2.0
"""How long a process may take to end once its input has ended."""
DYING_S = 15.0
"""How long it may take once its output has ended."""


@dataclass(frozen=True)
class Timing:
    """Medians of interleaved runs of one model, one thread, in microseconds."""

    wall_us: float
    cpu_us: float
    noise: float = 0.0
    """Standard error of the processor time, as a share of it."""


class _Worker:
    """One process, started when first asked and again after a crash; `place` is where it keeps its files."""

    def __init__(self, samples: Path, place: Path, number: int) -> None:
        self._samples = samples
        self.outputs = place / f"answers{number}.npz"
        self._log = place / f"worker{number}.log"
        self.process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer. Raises CandidateFailed."""
        if self.process is None or self.process.poll() is not None:
            self.process = self._start()
        return self._exchange(self.process, request)

    def ask_fresh(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of a process that did nothing before. Raises CandidateFailed."""
        process = self._start()
        try:
            return self._exchange(process, request)
        finally:
            _end(process)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            _end(self.process)
            self.process = None

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "autoglm_edge_converter.worker", str(self._samples)]
        with self._log.open("w") as log:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def _exchange(self, process: subprocess.Popen[str], request: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            # It is dying already; one that dumps its memory takes long, and must not be said to have been killed.
            _end(process, DYING_S)
            raise CandidateFailed(self._last_words(process.returncode))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CandidateFailed(str(answer["error"]))
        return answer

    def _last_words(self, code: int) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        reason = f"the process was ended by signal {-code}" if code < 0 else f"the process ended with code {code}"
        if sys.platform != "win32" and code == -signal.SIGKILL:
            # Nobody here kills a process that still works; the system does so where memory is short.
            reason = "the process was killed (out of memory?)"
        return f"{reason}: {lines[-1][:300]}" if lines else reason


class Laboratory:
    """Runs and times models over one set of samples. A context manager; `scratch` is an existing directory.

    What `memory` holds of time and memory is not measured again: figures of one machine then stay the same.
    """

    def __init__(
        self,
        samples: Sequence[Feed],
        scratch: Path,
        workers: int = 1,
        memory: Cache = NoCache(),  # noqa: B008
    ) -> None:
        self._memory = memory
        path = self._samples = scratch / "samples.npz"
        arrays = {f"{index}.{name}": array for index, feed in enumerate(samples) for name, array in feed.items()}
        np.savez(path, allow_pickle=False, **arrays)
        self.workers = tuple(_Worker(path, scratch, number) for number in range(max(1, workers)))
        # Last in, first out: while one thread asks, one process answers and the others are never started.
        self._free: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for worker in reversed(self.workers):
            self._free.put(worker)

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.close()

    def run(self, model: Path, samples: Sequence[int]) -> Answers:
        """Return a model's answers to the samples with these indices. Raises CandidateFailed."""
        return self._run(model, samples, {})

    def follow(self, model: Path, samples: Sequence[int], states: Mapping[str, int]) -> Answers:
        """Return a model's answers to samples that are one sequence. Raises CandidateFailed.

        `states`: by input, the output that goes into it with the next sample; what the samples hold for it gives its
        shape and no more.
        """
        return self._run(model, samples, {"states": dict(states)})

    def _run(self, model: Path, samples: Sequence[int], more: dict[str, Any]) -> Answers:
        with self._one() as worker:
            request = {"do": "run", "model": str(model), "samples": list(samples), "outputs": str(worker.outputs)}
            answer = worker.ask(request | more)
            with np.load(worker.outputs, allow_pickle=False) as archive:
                return tuple(
                    tuple(archive[f"{position}.{number}"] for number in range(answer["outputs"]))
                    for position in range(len(samples))
                )

    def time(self, models: Sequence[Path], samples: Sequence[int], patience: float = 1.0) -> tuple[Timing, ...]:
        """Time models in turns, while no other worker runs; `patience` times as long as usual.

        Raises CandidateFailed when one of them fails.
        """

        def measure() -> dict[str, Any]:
            request = {"do": "time", "models": [str(model) for model in models], "samples": list(samples)}
            with self._all() as worker:
                return worker.ask(request | {"patience": patience})

        answer = self._remembered(["time", patience, list(samples)], models, measure)
        return tuple(Timing(*each) for each in zip(answer["wall_us"], answer["cpu_us"], answer["noise"], strict=True))

    def peak_memory_bytes(self, model: Path, samples: Sequence[int]) -> int:
        """Return the peak resident memory of a fresh process that loads and runs a model. Raises CandidateFailed."""

        def measure() -> dict[str, Any]:
            with self._one() as worker:
                return worker.ask_fresh({"do": "memory", "model": str(model), "samples": list(samples)})

        return int(self._remembered(["memory", list(samples)], [model], measure)["peak_rss_bytes"])

    def _remembered(
        self, question: Sequence[object], models: Sequence[Path], measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return what was measured of the same files on this machine before, else measure it and keep it."""
        if not all(model.is_file() for model in models):
            return measure()
        facts = [machine_name(), versions(), sha256_of_file(self._samples), [sha256_of_file(model) for model in models]]
        key = json.dumps([*question, *facts])
        known = self._memory.get(key)
        if known is not None:
            with suppress(ValueError):
                return dict(json.loads(known))
        answer = measure()
        self._memory.put(key, json.dumps(answer).encode())
        return answer

    @contextmanager
    def _one(self) -> Iterator[_Worker]:
        worker = self._free.get()
        try:
            yield worker
        finally:
            self._free.put(worker)

    @contextmanager
    def _all(self) -> Iterator[_Worker]:
        taken = [self._free.get() for _ in self.workers]
        first = min(taken, key=self.workers.index)
        try:
            yield first
        finally:
            for worker in sorted(taken, key=self.workers.index, reverse=True):
                self._free.put(worker)


def default_workers() -> int:
    """Return how many models to run at once: the processors that this process may use, at most four."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(4, usable))


def _end(process: subprocess.Popen[str], patience_s: float = LEAVING_S) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
