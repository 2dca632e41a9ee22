"""The commands that make a bundle again, beside its inputs, and that look at it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path, PurePath

from autoglm_edge_converter.operators import CustomOperators
from autoglm_edge_converter.results import Options

UNTOLD = frozenset(("name", "version", "force", "cache"))
"""Fields of `Options` that are told otherwise, or say where things lie and not what they are."""


def commands(name: str, version: str, source: str, calibration: str, options: Options) -> tuple[str, ...]:
    """Return shell commands; files are named without their folders."""
    again = ["autoglm-edge", "convert", source, "--calibration", calibration, "--output", "bundles"]
    again += ["--name", name, "--version", version, *_words(options)]
    bundle = f"bundles/{name}-{version}.bundle"
    return (
        shlex.join(again),
        shlex.join(["autoglm-edge", "bundle", "show", bundle]),
        shlex.join(["autoglm-edge", "bench", bundle]),
    )


def _words(options: Options) -> Iterator[str]:
    """Give the words of every field but those untold; those that have their default are left out, some stay."""
    yield from ("--max-drop", f"{options.max_drop:g}", "--seed", str(options.seed))
    for field in fields(options):
        if field.name in UNTOLD or field.name in ("max_drop", "seed"):
            continue
        value = getattr(options, field.name)
        if field.name in _SEVERAL:
            for words in _SEVERAL[field.name](value):
                yield from words
        elif value != field.default:
            yield from _option(_SPELLED.get(field.name, field.name), value)


_SPELLED = {"max_size_bytes": "max-size"}
_NAMES_A_FILE = ("finetune", "state_dict", "example_inputs")
"""Options whose text begins with a path."""


def _option(name: str, value: object) -> tuple[str, ...]:
    flag = f"--{name.replace('_', '-')}"
    return (flag,) if value is True else (flag, _text(name, value))


def _text(name: str, value: object) -> str:
    if isinstance(value, PurePath) or name in _NAMES_A_FILE:
        return Path(str(value)).name
    return f"{value:g}" if isinstance(value, float) else str(value)


def _each(name: str) -> Callable[[tuple[str, ...]], list[tuple[str, ...]]]:
    return lambda values: [_option(name, value) for value in values]


def _shapes(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> list[tuple[str, ...]]:
    return [("--shape", f"{name}={','.join(str(axis) for axis in shape)}") for name, shape in shapes]


def _states(states: tuple[tuple[str, str], ...] | None) -> list[tuple[str, ...]]:
    if states is None:
        return []
    return [("--state", f"{name}={output}") for name, output in states] or [("--state", "none")]


def _ops(ops: CustomOperators) -> list[tuple[str, ...]]:
    plain = [("--ops", library.name) for library in ops.onnxruntime]
    return [*plain, *(("--ops", f"{entry.library.name}:{entry.function}") for entry in ops.litert)]


def _data(data: object) -> list[tuple[str, ...]]:
    given = {field.name: getattr(data, field.name) for field in fields(data)}  # type: ignore[arg-type]  # a dataclass
    return [_option(name, value) for name, value in given.items() if value not in (None, False)]


_SEVERAL: dict[str, Callable[..., list[tuple[str, ...]]]] = {
    "precisions": _each("precision"),
    "formats": _each("format"),
    "targets": _each("target"),
    "shapes": _shapes,
    "states": _states,
    "loading": lambda entries: [_option(name, value) for name, value in entries],
    "ops": _ops,
    "data": _data,
    "run_oldest": lambda wanted: [] if wanted else [("--tables-only",)],
}
"""Fields that are more than one option, or the opposite of one."""
