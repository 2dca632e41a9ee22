"""ONNX files, by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from autoglm_edge_converter import operators
from autoglm_edge_converter.tensors import Array, Feed


class OnnxRunner:
    """A session of ONNX Runtime."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def run(self, feed: Feed) -> Sequence[Array]:
        """See `Runner.run`."""
        found: Sequence[Array] = self._session.run(None, feed)
        return found


def open_onnx(path: Path, threads: int = 1) -> OnnxRunner:
    """Open a file. Errors of the runtime pass through."""
    return OnnxRunner(open_session(str(path), threads))


def session_options(threads: int = 1) -> ort.SessionOptions:
    """Return what every session that is timed here has in common: so many threads, no spinning, no warnings."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_session(model: str | bytes, threads: int = 1) -> ort.InferenceSession:
    """Open a model on the CPU, without warnings. Errors of the runtime pass through."""
    options = session_options(threads)
    operators.register(options)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
