"""LiteRT's predecessor, the package `tflite-runtime`: the only one with wheels for 32-bit ARM. Needs numpy below 2."""

from __future__ import annotations

from tflite_runtime import interpreter

from autoglm_edge_agent.inference.backends import Backend
from autoglm_edge_agent.inference.backends.tflite import Interpreters

_TFLITE = Interpreters(
    "tflite-runtime",
    interpreter.Interpreter,
    interpreter.InterpreterWithCustomOps,
    interpreter.OpResolverType,
    interpreter.load_delegate,
)

BACKEND = Backend(_TFLITE.open, _TFLITE.providers)
