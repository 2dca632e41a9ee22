"""Going a road: the program of a framework is started, its progress told on, and its result read.

Nothing of a framework is imported here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm_edge_converter import errors
from autoglm_edge_converter.original import Rendition
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.tensors import Port

_KINDS: dict[str, type[errors.ConversionError]] = {
    kind.__name__: kind
    for kind in (
        errors.BadModel,
        errors.NotAModel,
        errors.BrokenWeights,
        errors.MissingWeights,
        errors.ModelDoesNotRun,
        errors.BadOption,
        errors.UserCodeFailed,
        errors.SampleMismatch,
    )
}


@dataclass(frozen=True)
class Departure:
    """What a road program made of an original."""

    runnable: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    renditions: tuple[Rendition, ...]
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    precision: str = "float32"
    """That the original computes in."""


@dataclass(frozen=True)
class Request:
    """What a road program is asked for."""

    model: str
    """A path, or `module.py:factory`."""
    scratch: Path
    formats: Sequence[str]
    shapes: Mapping[str, Sequence[int]]
    options: Mapping[str, object]

    def to_text(self) -> str:
        """Return the request as JSON."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        return json.dumps(
            {
                "model": self.model,
                "scratch": str(self.scratch),
                "formats": list(self.formats),
                "shapes": shapes,
                "options": dict(self.options),
            }
        )


def program_of(framework: str) -> tuple[str, ...]:
    """Return the command of a framework's program, without its request."""
    return (sys.executable, "-m", f"{__package__}.{framework}")


def travel(program: Sequence[str], request: Request, progress: Progress) -> Departure:
    """Have a road program load a model and write its float files. Raises ConversionError, OSError."""
    place = request.scratch / "request.json"
    place.write_text(request.to_text(), encoding="utf-8")
    log = request.scratch / "road.log"
    command = [*program, str(place)]
    with log.open("w") as errors_to:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors_to, text=True, encoding="utf-8")
        try:
            assert process.stdout is not None
            last = _follow(process.stdout, progress)
            process.wait()
        finally:
            _end(process)
    if last is None:
        raise errors.BadModel(f"{request.model} could not be loaded: {_last_words(process, log)}")
    return last


def _follow(lines: Any, progress: Progress) -> Departure | None:
    for line in lines:
        said = _said(line)
        if "step" in said:
            progress.step(said["step"])
        elif "error" in said:
            raise _KINDS.get(said.get("kind", ""), errors.ConversionError)(said["error"])
        elif "departure" in said:
            return read_departure(said["departure"])
    return None


def _said(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}  # a library that prints to the descriptor itself
    return said if isinstance(said, dict) else {}


def read_departure(said: Mapping[str, Any]) -> Departure:
    """Return the result that a program printed."""
    renditions = (
        Rendition(
            format=entry["format"],
            path=Path(entry["path"]) if entry["path"] is not None else None,
            road=entry["road"],
            problem=entry.get("problem"),
            pruning=float(entry.get("pruning", 0.0)),
        )
        for entry in said["renditions"]
    )
    return Departure(
        runnable=Path(said["runnable"]),
        inputs=tuple(map(_port, said["inputs"])),
        outputs=tuple(map(_port, said["outputs"])),
        renditions=tuple(renditions),
        versions=dict(said.get("versions", {})),
        notes=tuple(said.get("notes", ())),
        precision=said.get("precision", "float32"),
    )


def _port(said: Mapping[str, Any]) -> Port:
    shape = said["shape"]
    return Port(said["name"], said["dtype"], None if shape is None else tuple(shape))


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(2.0)
    if process.poll() is None:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_words(process: subprocess.Popen[str], log: Path) -> str:
    code = process.returncode
    lines = log.read_text(errors="replace").strip().splitlines()
    reason = f"the process was ended by signal {-code}" if code < 0 else f"the process ended with code {code}"
    return f"{reason}: {lines[-1][:300]}" if lines else reason
