"""Running models in processes of their own, so that a candidate that crashes is a finding and not the end.

One worker stays up and keeps the samples; it is started again after a crash. What must be measured in a fresh process
(memory) gets one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.tensors import Array, Feed

Answers = tuple[tuple[Array, ...], ...]
"""Outputs of a model: one tuple per sample, in the order of the model's outputs."""


@dataclass(frozen=True)
class Timing:
    """Medians of interleaved runs of one model, one thread, in microseconds."""

    wall_us: float
    cpu_us: float


class Laboratory:
    """Runs and times models over one set of samples. A context manager; `scratch` is an existing directory."""

    def __init__(self, samples: Sequence[Feed], scratch: Path) -> None:
        self._scratch = scratch
        self._samples = scratch / "samples.npz"
        self._log = scratch / "worker.log"
        arrays = {f"{index}.{name}": array for index, feed in enumerate(samples) for name, array in feed.items()}
        np.savez(self._samples, allow_pickle=False, **arrays)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def run(self, model: Path, samples: Sequence[int]) -> Answers:
        """Return a model's answers to the samples with these indices. Raises CandidateFailed."""
        outputs = self._scratch / "answers.npz"
        answer = self._ask({"do": "run", "model": str(model), "samples": list(samples), "outputs": str(outputs)})
        with np.load(outputs, allow_pickle=False) as archive:
            return tuple(
                tuple(archive[f"{position}.{number}"] for number in range(answer["outputs"]))
                for position in range(len(samples))
            )

    def time(self, models: Sequence[Path], samples: Sequence[int]) -> tuple[Timing, ...]:
        """Time models in turns. Raises CandidateFailed when one of them fails."""
        answer = self._ask({"do": "time", "models": [str(model) for model in models], "samples": list(samples)})
        return tuple(Timing(*pair) for pair in zip(answer["wall_us"], answer["cpu_us"], strict=True))

    def peak_memory_bytes(self, model: Path, samples: Sequence[int]) -> int:
        """Return the peak resident memory of a fresh process that loads and runs a model. Raises CandidateFailed."""
        process = self._start()
        try:
            answer = self._exchange(process, {"do": "memory", "model": str(model), "samples": list(samples)})
        finally:
            _end(process)
        return int(answer["peak_rss_bytes"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        return self._exchange(self._process, request)

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
            _end(process)
            raise CandidateFailed(self._last_words(process.returncode))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CandidateFailed(str(answer["error"]))
        return answer

    def _last_words(self, code: int) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        reason = f"the process was ended by signal {-code}" if code < 0 else f"the process ended with code {code}"
        return f"{reason}: {lines[-1][:300]}" if lines else reason


def _end(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
