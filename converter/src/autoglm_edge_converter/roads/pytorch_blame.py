"""Errors of PyTorch told as one line, with the line of the user's code that they come from.

Pure but for reading tracebacks; torch itself is not imported here.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

_OURS = str(Path(__file__).resolve().parents[1])
_FRAMEWORK = re.compile(
    r"[\\/]site-packages[\\/](torch|torch_pruning|litert_torch|litert_converter|jax|onnxscript)[\\/]"
)
_STANDARD = sysconfig.get_paths()["stdlib"]

_DATA_DEPENDENT = (
    "GuardOnDataDependentSymNode",
    "DataDependentOutputException",
    "UnsupportedOperatorException",
    "TracerWarning",
)
"""Errors of torch that mean: what is computed depends on values, not on shapes alone."""


def place_of(error: BaseException) -> str | None:
    """Return file, line and code of the innermost frame that is the user's, None where there is none."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    if not own:
        return None
    frame = own[-1]
    code = f", `{frame.line.strip()}`" if frame.line else ""
    return f"{Path(frame.filename).name} line {frame.lineno}, in {frame.name}{code}"


def _is_users(filename: str) -> bool:
    if filename.startswith("<") or filename.startswith(_OURS) or _FRAMEWORK.search(filename):
        return False
    return "site-packages" in filename or not filename.startswith(_STANDARD)


def is_data_dependent(error: BaseException) -> bool:
    """Tell whether an export failed because control flow depends on the values of tensors."""
    names = {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}
    return bool(names & set(_DATA_DEPENDENT)) or "data-dependent" in str(error).lower()


def said(error: BaseException) -> str:
    """Return the first telling line of an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def root_of(error: BaseException) -> BaseException:
    """Return what an error was raised from, to the end: exporters wrap what says most."""
    return _chain(error)[-1]


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return chain
