"""Has onnx2tf write a float TFLite file without TensorFlow: `onnx_to_tflite.py MODEL.onnx FOLDER INPUT...`.

The inputs named keep their layout. The last line on standard output is `{"path": PATH}` or `{"error": LINE}`; what
libraries print goes to standard error. Needs the package onnx2tf, nothing of this project.
"""

import importlib
import json
import os
import sys
from pathlib import Path


def convert(model: str, folder: Path, inputs: list[str]) -> str:
    """Return the path of the file that was written. Whatever onnx2tf raises passes through."""
    importlib.import_module("onnx2tf").convert(
        input_onnx_file_path=model,
        output_folder_path=str(folder),
        keep_shape_absolutely_input_names=inputs,
        tflite_backend="flatbuffer_direct",
        non_verbose=True,
        verbosity="error",
    )
    written = sorted(folder.glob("*_float32.tflite"))
    if len(written) != 1:
        raise RuntimeError(f"onnx2tf wrote {len(written)} float files")
    return str(written[0])


def main() -> None:
    """Convert what the arguments name."""
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        told = {"path": convert(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])}
    except (Exception, SystemExit) as error:  # onnx2tf leaves by sys.exit where it does not know further
        told = {"error": " ".join((str(error) or type(error).__name__).split())[:500]}
    said.write(json.dumps(told) + "\n")
    said.flush()


if __name__ == "__main__":
    main()
