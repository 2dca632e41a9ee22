"""How applications on the boards ask: over the fast path, with Triton's client, or with nothing but HTTP and JSON."""

from __future__ import annotations

import http.client
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

INPUT = "bytes"
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Answer:
    """What a device said, and which release said it."""

    release: str
    scores: Array


class Asker(Protocol):
    """One application's connection."""

    way: str
    """How it asks, for people."""

    def ask(self, features: Array) -> Answer:
        """Ask once. Raises OSError, ValueError and what else the way has; the next call connects again."""

    def close(self) -> None:
        """End the connection."""


def asker_for(endpoints: Sequence[str], model: str, number: int) -> Asker:
    """Return the way that the application of this number asks; every other one takes the fast path where it is."""
    fast = next((each.removeprefix("fast:") for each in endpoints if each.startswith("fast:")), None)
    if fast is not None and number % 2 == 0:
        return FastPathAsker(fast)
    url = next(each for each in endpoints if each.startswith("http"))
    return TritonAsker(url, model) if importlib.util.find_spec("tritonclient") else PlainAsker(url, model)


class FastPathAsker:
    """Tensors in memory that application and worker share."""

    way = "fast path"

    def __init__(self, path: str) -> None:
        # In here: it exists on Linux only, and the agent is there only where the demonstration is to be run.
        from autoglm_edge_agent.client import Client

        self._client = Client(path, timeout_s=TIMEOUT_S)

    def ask(self, features: Array) -> Answer:
        """See `Asker`."""
        outputs = self._client.infer({INPUT: features[None]})
        return Answer(f"{self._client.version} {self._client.variant}", next(iter(outputs.values())).ravel())

    def close(self) -> None:
        """See `Asker`."""
        self._client.close()


class TritonAsker:
    """NVIDIA's client of the Open Inference Protocol, with binary tensors."""

    way = "tritonclient"

    def __init__(self, url: str, model: str) -> None:
        from tritonclient import http as triton

        self._triton = triton
        self._model = model
        self._client = triton.InferenceServerClient(
            url.removeprefix("http://"), connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S
        )

    def ask(self, features: Array) -> Answer:
        """See `Asker`."""
        tensor = self._triton.InferInput(INPUT, [1, features.size], "INT32")
        tensor.set_data_from_numpy(features[None])
        found = self._client.infer(self._model, [tensor])
        told = found.get_response()
        scores = found.as_numpy(told["outputs"][0]["name"])
        return Answer(f"{told['model_version']} {told['parameters']['variant']}", scores.ravel())

    def close(self) -> None:
        """See `Asker`."""
        self._client.close()


class PlainAsker:
    """What any program can do."""

    way = "HTTP and JSON"

    def __init__(self, url: str, model: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        self._path = f"/v2/models/{model}/infer"

    def ask(self, features: Array) -> Answer:
        """See `Asker`."""
        tensor = {"name": INPUT, "shape": [1, features.size], "datatype": "INT32", "data": features.tolist()}
        try:
            self._connection.request("POST", self._path, json.dumps({"inputs": [tensor]}))
            response = self._connection.getresponse()
            told: dict[str, Any] = json.loads(response.read())
        except BaseException:
            self._connection.close()
            raise
        if response.status != 200:
            raise ValueError(f"status {response.status}: {told.get('error')}")
        release = f"{told['model_version']} {told['parameters']['variant']}"
        return Answer(release, np.asarray(told["outputs"][0]["data"]))

    def close(self) -> None:
        """See `Asker`."""
        self._connection.close()
