"""A bundle of each format, converted on this machine, and what it answers here: what boards are compared with."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tests.e2e.digits import EXAMPLES, images

from autoglm_edge_converter import Options, convert
from autoglm_edge_protocol.manifest import MANIFEST_PATH, Manifest

Array = npt.NDArray[np.float32]
Start = Callable[..., AbstractContextManager[subprocess.Popen[str]]]

IMAGES = 32
LEAST_SQNR_DB = 25.0
"""Of a board's logits against this machine's. Both run the same INT8 model; their kernels round sums differently, which
moves single activations by one step of 1/255. A wrong kernel or a swapped tensor is far below 10 dB."""


@dataclass(frozen=True)
class Converted:
    """A packed bundle and its INT8 variant."""

    packed: Path
    variant: str
    channels_last: bool


def convert_digits(original: str, folder: Path, targets: tuple[str, ...]) -> None:
    """Convert a network of examples/digits to INT8 in a folder."""
    channels_last = original.endswith(".tflite")
    np.savez(folder / "calibration.npz", x=_laid_out(images(60, "calibration"), channels_last))
    # Integers at the border, because such a variant is shipped however fast it is on this processor.
    options = Options(
        name="digits", precisions=("int8",), max_drop=0.05, int8_io=channels_last, targets=targets, run_oldest=False
    )
    convert(EXAMPLES / original, folder / "calibration.npz", folder, options)


def converted(folder: Path) -> Converted:
    """Return what `convert_digits` has left in a folder."""
    directory = folder / "digits-1.0.0"
    manifest = Manifest.model_validate_json((directory / MANIFEST_PATH).read_bytes())
    for variant in manifest.variants:
        if variant.id == "tflite-int8-io" or (variant.format == "onnx" and "int8" in variant.id):
            return Converted(folder / f"{directory.name}.bundle", variant.id, variant.format == "tflite")
    raise AssertionError(f"no INT8 variant among {[variant.id for variant in manifest.variants]}")


def ask(bundle: Converted, packed: str, start: Start) -> Array:
    """Serve a bundle with the agent's own command, as `start` runs it, and return its logits, [IMAGES, 10].

    The command first replays the golden set, and ends with an error where the answers are not those of the original.
    """
    command = ["serve", packed, "--variant", bundle.variant, "--http", "127.0.0.1:0", "--json"]
    with start("autoglm-edge-agent", *command) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("{"):
                break
        assert said and said[-1].startswith("{"), "".join(said)
        url = next(each for each in json.loads(said[-1])["endpoints"] if each.startswith("http"))
        return _infer(f"{url}/v2/models/digits", bundle.channels_last)


def here(*command: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start a command of this environment on this machine."""
    from tests.boards.qemu_user import Running

    return Running([str(Path(sys.executable).with_name(command[0])), *command[1:]])


def sqnr_db(reference: Array, answer: Array) -> float:
    """Return the power of the reference over that of the difference."""
    noise = float(((reference - answer) ** 2).sum())
    return float("inf") if noise == 0 else float(10 * np.log10(float((reference**2).sum()) / noise))


def _laid_out(x: Array, channels_last: bool) -> Array:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if channels_last else x


def _infer(url: str, channels_last: bool) -> Array:
    name = _request(url)["inputs"][0]["name"]
    answers = []
    for image in _laid_out(images(IMAGES), channels_last):
        shape = [1, *image.shape]
        body = {"name": name, "shape": shape, "datatype": "FP32", "data": image.ravel().tolist()}
        output = _request(f"{url}/infer", {"inputs": [body]})["outputs"][0]
        answers.append(np.array(output["data"], np.float32))
    return np.stack(answers)


def _request(url: str, body: object = None) -> dict[str, list[dict[str, object]]]:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=60) as response:
        answer: dict[str, list[dict[str, object]]] = json.loads(response.read())
    return answer
