"""Applications on the boards: real files, sent through the devices' inference endpoints all the while."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoglm_edge.demo.askers import Asker, asker_for
from autoglm_edge.demo.filetypes import LabelledFile

PAUSE_S = 0.03
TIMEOUT_S = 20.0


@dataclass
class Answers:
    """What one release of the model answered."""

    latencies_ms: list[float] = field(default_factory=list)
    predicted: dict[int, str] = field(default_factory=dict)
    """Number of the file -> the label that the devices gave it last."""
    disagreements: int = 0
    """Requests on which it did not say what the original model says."""

    def accuracy(self, files: Sequence[LabelledFile]) -> float:
        """Return the fraction of the files seen whose label is right."""
        right = sum(files[number].label == label for number, label in self.predicted.items())
        return right / max(1, len(self.predicted))

    @property
    def agreement(self) -> float:
        """Fraction of requests answered as the original model would."""
        return 1 - self.disagreements / max(1, len(self.latencies_ms))

    @property
    def p50_ms(self) -> float:
        """Median time of a request as the application sees it, in milliseconds."""
        return float(np.median(self.latencies_ms)) if self.latencies_ms else float("nan")


class Traffic:
    """One thread per device that asks without end; every failed request is kept."""

    def __init__(
        self,
        endpoints: Mapping[str, Sequence[str]],
        model: str,
        files: Sequence[LabelledFile],
        expected: Sequence[str],
        labels: Sequence[str],
    ) -> None:
        self._model = model
        self._files = files
        self._expected = expected
        self._labels = labels
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answers: dict[str, Answers] = defaultdict(Answers)
        self.failures: list[str] = []
        self.requests = 0
        self.ways_ms: dict[str, list[float]] = defaultdict(list)
        """By way of asking: how long each request took."""
        self._threads = [
            threading.Thread(target=self._ask, args=(device, addresses, number), daemon=True)
            for number, (device, addresses) in enumerate(sorted(endpoints.items()))
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _ask(self, device: str, endpoints: Sequence[str], first: int) -> None:
        number = first * len(self._files) // 3
        asker: Asker | None = None
        while not self._stop.wait(PAUSE_S):
            number = (number + 1) % len(self._files)
            try:
                asker = asker or asker_for(endpoints, self._model, first)
                self._one(asker, number)
            except Exception as error:  # each way has errors of its own
                with self._lock:
                    self.failures.append(f"{device}: {type(error).__name__}: {error}")
        if asker is not None:
            asker.close()

    def _one(self, asker: Asker, number: int) -> None:
        started = time.perf_counter()
        answer = asker.ask(self._files[number].features)
        elapsed_ms = (time.perf_counter() - started) * 1000
        label = self._labels[int(np.argmax(answer.scores))]
        with self._lock:
            self.requests += 1
            self.ways_ms[asker.way].append(elapsed_ms)
            release = self.answers[answer.release]
            release.latencies_ms.append(elapsed_ms)
            release.predicted[number] = label
            release.disagreements += label != self._expected[number]
