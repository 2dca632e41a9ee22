"""Runs a model file in the runtime of the environment that this is started in: `old_runtime.py REQUEST.json`.

Reads `{"runtime": "onnxruntime", "model": PATH, "samples": NPZ, "answers": NPZ, "libraries": [PATH]}` (runtimes:
`OPENERS`), where the samples are arrays named `INDEX.INPUT`, and writes the answers as `INDEX.OUTPUT` by position. A
TFLite file with 8-bit inputs may be given real numbers, float32, and then answers with such where it gives 8 bits. The
last line on standard output is `{"outputs": COUNT}` or `{"error": LINE}`. Needs numpy and the runtime, nothing of this
project, and keeps to Python 3.9.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[[dict[str, Any]], list[Any]]
"""Inputs by name to outputs in the model's order."""


def open_onnx(model: str, libraries: list[str]) -> Run:
    """Load an ONNX file on one thread of the CPU. Errors of the runtime pass through."""
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for path in libraries:
        options.register_custom_ops_library(path)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda feed: list(session.run(None, feed))


def open_tflite(module: str) -> Callable[[str, list[str]], Run]:
    """Return what loads a TFLite file with the interpreter of a module. Errors of the runtime pass through."""

    def load(model: str, libraries: list[str]) -> Run:
        interpreter = importlib.import_module(module).Interpreter(model_path=model, num_threads=1)
        interpreter.allocate_tensors()
        names = _signature_names(interpreter)
        inputs = {names.get(item["index"], item["name"]): item for item in interpreter.get_input_details()}
        shapes = {name: tuple(item["shape"]) for name, item in inputs.items()}

        def run(feed: dict[str, Any]) -> list[Any]:
            resized = [name for name, array in feed.items() if shapes[name] != array.shape]
            for name in resized:
                shapes[name] = feed[name].shape
                interpreter.resize_tensor_input(inputs[name]["index"], feed[name].shape)
            if resized:
                interpreter.allocate_tensors()
            interpreter.reset_all_variables()
            arrays = {name: _as_taken(array, inputs[name]) for name, array in feed.items()}
            as_real = any(arrays[name].dtype != array.dtype for name, array in feed.items())
            for name, array in arrays.items():
                interpreter.set_tensor(inputs[name]["index"], array)
            interpreter.invoke()
            found = [(interpreter.get_tensor(item["index"]), item) for item in interpreter.get_output_details()]
            return [_as_real(array, item) if as_real else array for array, item in found]

        return run

    return load


def _as_taken(array: Any, item: dict[str, Any]) -> Any:
    """Return real numbers (float32) as the integers that a quantized input takes, and anything else as it is."""
    import numpy as np

    scale, zero_point = item["quantization"]
    if array.dtype != np.float32 or item["dtype"] not in (np.int8, np.uint8) or not scale:
        return array
    ends = np.iinfo(item["dtype"])
    return np.clip(np.round(array / np.float32(scale)) + zero_point, ends.min, ends.max).astype(item["dtype"])


def _as_real(array: Any, item: dict[str, Any]) -> Any:
    """Return the real numbers, float32, that a quantized output stands for, and anything else as it is."""
    import numpy as np

    scale, zero_point = item["quantization"]
    return (array.astype(np.float32) - np.float32(zero_point)) * np.float32(scale) if scale else array


def _signature_names(interpreter: Any) -> dict[int, str]:
    own = {item["index"] for item in interpreter.get_input_details()}
    for key in interpreter.get_signature_list():
        named = interpreter.get_signature_runner(key).get_input_details()
        names = {item["index"]: name for name, item in named.items()}
        if set(names) == own:
            return names
    return {}


OPENERS: dict[str, Callable[[str, list[str]], Run]] = {
    "onnxruntime": open_onnx,
    "litert": open_tflite("ai_edge_litert.interpreter"),
    "tflite": open_tflite("tflite_runtime.interpreter"),
}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run the model over every sample and save what it answers."""
    import numpy as np

    run = OPENERS[request["runtime"]](request["model"], request["libraries"])
    feeds: dict[int, dict[str, Any]] = {}
    with np.load(request["samples"], allow_pickle=False) as archive:
        for key in archive.files:
            index, _, name = key.partition(".")
            feeds.setdefault(int(index), {})[name] = archive[key]
    arrays: dict[str, Any] = {}
    for index, feed in feeds.items():
        for number, output in enumerate(run(feed)):
            arrays[f"{index}.{number}"] = np.asarray(output)
    with Path(request["answers"]).open("wb") as file:
        save: Any = np.savez  # before 2.1 it takes `allow_pickle` for the name of an array
        save(file, **arrays)
    return {"outputs": len(arrays) // max(1, len(feeds))}


def main() -> None:
    """Answer the request that the first argument names."""
    # Runtimes print to standard output now and then; the answer gets a descriptor of its own.
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        told = answer(request)
    except Exception as error:
        told = {"error": " ".join((str(error) or type(error).__name__).split())[:2000]}
    said.write(json.dumps(told) + "\n")
    said.flush()


if __name__ == "__main__":
    main()
