"""LiteRT, by the package `ai-edge-litert`."""

from __future__ import annotations

from ai_edge_litert import interpreter

from autoglm_edge_agent.inference.backends import Backend
from autoglm_edge_agent.inference.backends.tflite import Interpreters

_LITERT = Interpreters(
    "LiteRT",
    interpreter.Interpreter,
    interpreter.InterpreterWithCustomOps,
    interpreter.OpResolverType,
    interpreter.load_delegate,
)

BACKEND = Backend(_LITERT.open, _LITERT.providers)
