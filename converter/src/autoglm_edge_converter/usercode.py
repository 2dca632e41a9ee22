"""Functions that a user gives as `module.py:function`: loading them, and telling in one line where they fail."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoglm_edge_converter.errors import UserCodeFailed


def is_reference(text: str) -> bool:
    """Tell whether a text has the form `module.py:function`."""
    path, separator, function = text.rpartition(":")
    return bool(separator) and path.endswith(".py") and function.isidentifier()


def load_function(reference: str) -> Callable[..., Any]:
    """Return the function that `module.py:function` names; the module's folder can be imported from meanwhile.

    Raises UserCodeFailed.
    """
    if not is_reference(reference):
        raise UserCodeFailed(f"{reference!r} is not of the form module.py:function")
    text, _, name = reference.rpartition(":")
    path = Path(text).resolve()
    if not path.is_file():
        raise UserCodeFailed(f"{text} is not a file: give the path of a Python file, as in metrics.py:{name}")
    spec = importlib.util.spec_from_file_location(f"autoglm_edge_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserCodeFailed(f"{text} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    sys.path.insert(0, str(path.parent))
    try:
        with blamed_on(path):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    found = getattr(module, name, None)
    if not callable(found):
        raise UserCodeFailed(f"{text} has no function {name!r}")
    function: Callable[..., Any] = found
    return function


@contextmanager
def blamed_on(path: Path) -> Iterator[None]:
    """Turn whatever a user's code raises into one line with its file and line. Raises UserCodeFailed."""
    try:
        yield
    except UserCodeFailed:
        raise
    except (Exception, SystemExit) as error:
        raise UserCodeFailed(f"{_place(path, error)}: {_said(error)}: correct the function") from None


def _place(path: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name} line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) == path]
    return f"{path.name} line {own[-1].lineno}, in {own[-1].name}" if own else path.name


def _said(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def file_of(reference: str) -> Path:
    """Return the resolved file of `module.py:function`."""
    return Path(reference.rpartition(":")[0]).resolve()
