"""The frame of a road program of TensorFlow: a request is read, progress told, the result or one error printed.

What libraries print goes to standard error; the documents that `roads` describes get a descriptor of their own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoglm_edge_converter.errors import BadModel, ConversionError


@dataclass(frozen=True)
class Request:
    """What is asked for; see `travel.Request`, the other side."""

    model: str
    scratch: Path
    formats: tuple[str, ...] = ("onnx", "tflite")
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


Tell = Callable[[Mapping[str, Any]], None]
"""Prints one document."""

Road = Callable[[Request, Tell], Mapping[str, Any]]
"""Returns the departure. Raises ConversionError."""


def serve(road: Road, request: Path) -> int:
    """Go a road for one request and return the exit status: 0, or 1 after an error was printed."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)

        def tell(document: Mapping[str, Any]) -> None:
            answers.write(json.dumps(document) + "\n")
            answers.flush()

        return answer(road, read_request(request), tell)


def answer(road: Road, request: Request, tell: Tell) -> int:
    """Go a road, tell the departure or one error, and return the exit status."""
    try:
        tell({"departure": road(request, tell)})
    except ConversionError as error:
        tell({"error": str(error), "kind": type(error).__name__})
        return 1
    except Exception as error:
        tell({"error": f"the model could not be loaded: {said(error)}", "kind": BadModel.__name__})
        return 1
    return 0


def read_request(path: Path) -> Request:
    """Return the request in a file."""
    told = json.loads(path.read_text(encoding="utf-8"))
    return Request(
        model=told["model"],
        scratch=Path(told["scratch"]),
        formats=tuple(told.get("formats", ("onnx", "tflite"))),
        shapes=dict(told.get("shapes", {})),
        options=dict(told.get("options", {})),
    )


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_CAUSE = "Exception encountered: "
"""Keras puts what was raised behind this, after lines of configuration."""

_NOT_TELLING = ("Exception encountered when calling",)
"""Keras begins with it what a layer raised."""

_CONFIGURATION = " Full object config:"
_MOST_CHARACTERS = 300


def said(error: BaseException) -> str:
    """Return the first telling line of an error."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines()]
    causes = [line.removeprefix(_CAUSE) for line in lines if line.startswith(_CAUSE)]
    telling = [line for line in (*causes[-1:], *lines) if line and not line.startswith(_NOT_TELLING)]
    return f"{type(error).__name__}: {_shortened(telling[0])}" if telling else type(error).__name__


def _shortened(line: str) -> str:
    line = line.partition(_CONFIGURATION)[0]
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS].rpartition(' ')[0]} …"
