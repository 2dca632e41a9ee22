"""Real bundles for end-to-end tests: the digits networks of examples/digits, converted by the real converter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tests.fakes.agents import AgentProcess

EXAMPLES = Path(__file__).parents[2] / "examples" / "digits"
IMAGES = 4


@dataclass(frozen=True)
class DigitsBundle:
    """A packed bundle, and what the model it was made from answers to four test images."""

    version: str
    path: Path
    expected: npt.NDArray[np.float32]
    """float32 [4, 10], logits of the original network."""


def images(count: int, split: str = "test") -> npt.NDArray[np.float32]:
    """Return images, float32 [count, 1, 32, 32] in 0..1."""
    with np.load(EXAMPLES / "digits32.npz") as data:
        pixels = np.asarray(data[split][:count, None], dtype=np.float32)
    return np.divide(pixels, np.float32(255), dtype=np.float32)


def original_answers(network: str) -> npt.NDArray[np.float32]:
    """Return the logits of a network of examples/digits for the first test images."""
    session = onnxruntime.InferenceSession(str(EXAMPLES / f"{network}.onnx"), providers=["CPUExecutionProvider"])
    answers: npt.NDArray[np.float32] = session.run(None, {"x": images(IMAGES)})[0]
    return answers


def ask(agent: AgentProcess, known: dict[str, DigitsBundle]) -> tuple[str, bool]:
    """Ask the device about the test images: which version answered, and whether it names the original's digits."""
    x = images(IMAGES)
    metadata = agent.request("GET", "/v2/models/digits")
    name = metadata["inputs"][0]["name"]
    body: dict[str, Any] = {
        "inputs": [{"name": name, "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]
    }
    answer = agent.request("POST", "/v2/models/digits/infer", body)
    version = str(answer["model_version"])
    logits = np.array(answer["outputs"][0]["data"], np.float32).reshape(IMAGES, -1)
    same = logits.argmax(axis=1) == known[version].expected.argmax(axis=1)
    return version, bool(same.all())
