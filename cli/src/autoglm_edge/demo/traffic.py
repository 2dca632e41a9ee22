"""Applications on the boards: real files, sent through the devices' inference endpoints all the while."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

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
        self, endpoints: Mapping[str, str], model: str, files: Sequence[LabelledFile], expected: Sequence[str],
        labels: Sequence[str],
    ) -> None:  # fmt: skip
        self._model = model
        self._files = files
        self._expected = expected
        self._labels = labels
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answers: dict[str, Answers] = defaultdict(Answers)
        self.failures: list[str] = []
        self.requests = 0
        self._threads = [
            threading.Thread(target=self._ask, args=(device, url, number), daemon=True)
            for number, (device, url) in enumerate(sorted(endpoints.items()))
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _ask(self, device: str, url: str, first: int) -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        number = first * len(self._files) // 3
        while not self._stop.wait(PAUSE_S):
            number = (number + 1) % len(self._files)
            try:
                self._one(connection, number)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                with self._lock:
                    self.failures.append(f"{device}: {type(error).__name__}: {error}")
                connection.close()
        connection.close()

    def _one(self, connection: http.client.HTTPConnection, number: int) -> None:
        features = self._files[number].features
        tensor = {"name": "bytes", "shape": [1, features.size], "datatype": "INT32", "data": features.tolist()}
        body = json.dumps({"inputs": [tensor]})
        started = time.perf_counter()
        connection.request("POST", f"/v2/models/{self._model}/infer", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        elapsed_ms = (time.perf_counter() - started) * 1000
        if response.status != 200:
            raise ValueError(f"status {response.status}: {answer.get('error')}")
        label = self._labels[int(np.argmax(answer["outputs"][0]["data"]))]
        with self._lock:
            self.requests += 1
            release = self.answers[f"{answer['model_version']} {answer['parameters']['variant']}"]
            release.latencies_ms.append(elapsed_ms)
            release.predicted[number] = label
            release.disagreements += label != self._expected[number]
