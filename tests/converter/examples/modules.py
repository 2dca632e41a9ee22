"""Modules of an example, imported as its scripts import one another and forgotten by those names afterwards."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[3] / "examples"


def example_module(example: str, name: str) -> Any:
    """Return a module beside the others of its example; two examples may have modules of the same name."""
    folder = EXAMPLES / example
    own = {path.stem for path in folder.glob("*.py")}
    sys.path.insert(0, str(folder))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(folder))
        for module in own & set(sys.modules):
            del sys.modules[module]
