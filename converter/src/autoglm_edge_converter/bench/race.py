"""Timing sessions in turns: each lives in a process of its own, all are loaded, then each makes a few runs at a time.

A change of clock or load so meets all of them alike, and one that crashes or cannot use its provider is a line with
its reason.
"""

from __future__ import annotations

import json
import selectors
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from autoglm_edge_converter.bench.inputs import as_arrays
from autoglm_edge_converter.bench.providers import BUILT_IN, XNNPACK
from autoglm_edge_converter.bench.subject import Form, subject
from autoglm_edge_converter.errors import BadOption, CandidateFailed, ConversionError
from autoglm_edge_converter.formats import installed_runtime
from autoglm_edge_converter.machine import machine_name
from autoglm_edge_converter.original import ONNX, TFLITE
from autoglm_edge_converter.targets import RUNTIMES

_FORMATS = {RUNTIMES[form][0]: form for form in (ONNX, TFLITE)}

TURNS = 10
ANSWER_S = 180.0
"""How long one turn may take, loading included, before the process is given up."""

MOST_S = 30.0
"""Of runs for each contender; slow ones make fewer than asked, but never fewer than `FEWEST_RUNS`."""

FEWEST_RUNS = 3


@dataclass(frozen=True)
class Settings:
    """What a user may choose. `providers`: of ONNX Runtime, those built into it when empty; LiteRT has its own."""

    runs: int = 100
    threads: tuple[int, ...] = (1,)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ops: tuple[Path, ...] = ()
    providers: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Contender:
    """One way to run one form of the model here."""

    form: str
    runtime: str
    provider: str
    threads: int

    def __str__(self) -> str:
        return f"{self.form} on {self.provider.removesuffix('ExecutionProvider')}, {self.threads} threads"


@dataclass(frozen=True)
class Lap:
    """What a contender was measured at; times in microseconds a run."""

    runs: int
    median_us: float
    p90_us: float
    cpu_us: float
    """Processor time, all threads together: the median of the turns."""
    load_us: float
    peak_rss_bytes: int
    """Of the process that loaded and ran it, the interpreter and the runtime included."""
    speedup: float
    """Processor time of the first contender that works with as many threads, divided by this one's."""


@dataclass(frozen=True)
class Report:
    """What works here, in the order tried, and what does not, with its reason."""

    subject: str
    inputs: str
    machine: str
    runtime: str
    laps: tuple[tuple[Contender, Lap], ...]
    problems: tuple[tuple[Contender, str], ...]


def bench(path: Path, settings: Settings, heard: Callable[[str], None] = lambda _: None) -> Report:
    """Time the model or the bundle at `path`; `heard` is told what is being done.

    Raises ConversionError when nothing works here or an option does not fit, ProtocolError, OSError.
    """
    _check(settings)
    with (
        subject(path, settings.shapes, settings.ops, settings.seed) as what,
        TemporaryDirectory(prefix="autoglm-bench-") as scratch,
        ExitStack() as running,
    ):
        inputs = Path(scratch) / "inputs.npz"
        np.savez(inputs, allow_pickle=False, **as_arrays(what.feeds))
        problems: dict[Contender, str] = {}
        racers: dict[Contender, _Racer] = {}
        for contender, form in _contenders(what.forms, settings):
            heard(f"load {contender}")
            if form.problem:
                problems[contender] = form.problem
                continue
            racer = running.enter_context(_Racer(Path(scratch), len(racers) + len(problems)))
            try:
                racer.load(contender, form, inputs)
            except CandidateFailed as error:
                problems[contender] = str(error)
                continue
            racers[contender] = racer
        _race(racers, settings.runs, problems, heard)
        if not racers:
            raise ConversionError(_none_works(what.name, problems))
        return Report(
            subject=what.name,
            inputs=what.inputs,
            machine=machine_name(),
            runtime=", ".join(
                installed_runtime(_FORMATS[name]) for name in dict.fromkeys(f.runtime for f in what.forms)
            ),
            laps=tuple(_laps(racers)),
            problems=tuple(problems.items()),
        )


def _check(settings: Settings) -> None:
    if settings.runs < FEWEST_RUNS:
        raise BadOption(f"--runs is {FEWEST_RUNS} or more, not {settings.runs}")
    if not settings.threads or any(not 1 <= count <= 1024 for count in settings.threads):
        raise BadOption("--threads is a list of numbers from 1 up: --threads 1,2")


def _none_works(name: str, problems: Mapping[Contender, str]) -> str:
    contender, reason = next(iter(problems.items()))
    return f"{name} runs on nothing here: {contender}: {reason}"


def _contenders(forms: Sequence[Form], settings: Settings) -> list[tuple[Contender, Form]]:
    import onnxruntime

    providers = {
        RUNTIMES[ONNX][0]: settings.providers or tuple(reversed(onnxruntime.get_available_providers())),
        RUNTIMES[TFLITE][0]: (XNNPACK, BUILT_IN),
    }
    return [
        (Contender(form.id, form.runtime, provider, threads), form)
        for threads in dict.fromkeys(settings.threads)
        for form in forms
        for provider in providers.get(form.runtime, ("any",))
    ]


class _Racer:
    """One process and what it answered. A context manager that ends it."""

    def __init__(self, scratch: Path, number: int) -> None:
        self._order = scratch / f"{number}.json"
        self._log = scratch / f"{number}.log"
        self._process: subprocess.Popen[str] | None = None
        self.load_us = 0.0
        self.wall_us: list[float] = []
        self.cpu_us: list[float] = []
        self.peak_rss_bytes = 0

    def __enter__(self) -> _Racer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()

    def load(self, contender: Contender, form: Form, inputs: Path) -> None:
        """Start the process. Raises CandidateFailed."""
        order = {
            "model": str(form.model),
            "runtime": contender.runtime,
            "provider": contender.provider,
            "threads": contender.threads,
            "inputs": str(inputs),
            "ops": [str(library) for library in form.ops],
        }
        self._order.write_text(json.dumps(order), encoding="utf-8")
        command = [sys.executable, "-m", "autoglm_edge_converter.bench.worker", str(self._order)]
        with self._log.open("w") as log:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True)
        self.load_us = float(self._answer()["load_us"])

    def turn(self, runs: int) -> None:
        """Make some runs. Raises CandidateFailed."""
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{runs}\n")
            self._process.stdin.flush()
        answer = self._answer()
        self.wall_us += answer["wall_us"]
        self.cpu_us.append(answer["cpu_us"])
        self.peak_rss_bytes = int(answer["peak_rss_bytes"])

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(ANSWER_S):
                raise CandidateFailed(f"no answer within {ANSWER_S:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            reason = f"its process was ended by signal {-code}" if code < 0 else f"its process ended with code {code}"
            lines = self._log.read_text(errors="replace").strip().splitlines()
            raise CandidateFailed(f"{reason}: {lines[-1][:300]}" if lines else reason)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CandidateFailed(str(answer["error"]))
        return answer


def _race(
    racers: dict[Contender, _Racer], runs: int, problems: dict[Contender, str], heard: Callable[[str], None]
) -> None:
    """Let all make their runs in turns; one that fails leaves `racers` for `problems`."""
    size = max(1, runs // TURNS)
    while waiting := [(contender, racer) for contender, racer in racers.items() if not _is_done(racer, runs)]:
        for contender, racer in waiting:
            heard(f"{contender}: {len(racer.wall_us)} of {runs} runs")
            try:
                racer.turn(_next(racer, size, runs))
            except CandidateFailed as error:
                problems[contender] = str(error)
                del racers[contender]


def _next(racer: _Racer, size: int, runs: int) -> int:
    wanted = min(size, runs - len(racer.wall_us))
    if not racer.wall_us:
        return min(wanted, FEWEST_RUNS)
    affordable = int((MOST_S - sum(racer.wall_us) / 1e6) / (statistics.fmean(racer.wall_us) / 1e6))
    return max(1, min(wanted, affordable))


def _is_done(racer: _Racer, runs: int) -> bool:
    return len(racer.wall_us) >= runs or (len(racer.wall_us) >= FEWEST_RUNS and sum(racer.wall_us) / 1e6 >= MOST_S)


def _laps(racers: Mapping[Contender, _Racer]) -> list[tuple[Contender, Lap]]:
    first: dict[int, float] = {}
    laps = []
    for contender, racer in racers.items():
        cpu_us = statistics.median(racer.cpu_us)
        reference_us = first.setdefault(contender.threads, cpu_us)
        lap = Lap(
            runs=len(racer.wall_us),
            median_us=statistics.median(racer.wall_us),
            p90_us=float(np.quantile(racer.wall_us, 0.9)),
            cpu_us=cpu_us,
            load_us=racer.load_us,
            peak_rss_bytes=racer.peak_rss_bytes,
            speedup=reference_us / cpu_us if cpu_us > 0 else 0.0,
        )
        laps.append((contender, lap))
    return laps
