"""Opening LiteRT's interpreter with the libraries of custom operators that are in use (see `operators`)."""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import InterpreterWithCustomOps

from autoglm_edge_converter.operators import registerers_in_use


def open_interpreter(**options: Any) -> Any:
    """Return an interpreter; the options are those of `ai_edge_litert.interpreter.Interpreter`.

    Errors of the runtime pass through: ValueError, RuntimeError, OSError for a library.
    """
    registerers = [load(path, function) for path, function in registerers_in_use()]
    return InterpreterWithCustomOps(custom_op_registerers=registerers, **options)


@cache
def load(library: str, function: str) -> Any:
    """Load a library and return its function as the interpreter takes it.

    Raises OSError, AttributeError, ImportError.
    """
    stem = Path(library).name.partition(".")[0]
    loaded = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    if hasattr(loaded, f"PyInit_{stem}"):
        loader = importlib.machinery.ExtensionFileLoader(stem, library)
        spec = importlib.util.spec_from_file_location(stem, library, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        return getattr(module, function)
    getattr(loaded, function)  # a name that the library does not have is found here, not by the interpreter
    return function
