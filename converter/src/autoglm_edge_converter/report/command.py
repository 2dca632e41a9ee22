"""The commands that make a bundle again, beside its inputs, and that look at it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from autoglm_edge_converter.results import Options


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
    yield from ("--max-drop", f"{options.max_drop:g}", "--seed", str(options.seed))
    for precision in options.precisions:
        yield from ("--precision", precision)
    for name, shape in options.shapes:
        yield from ("--shape", f"{name}={','.join(str(axis) for axis in shape)}")
    for target in options.targets:
        yield from ("--target", target)
    for library in options.ops.onnxruntime:
        yield from ("--ops", library.name)
    for entry in options.ops.litert:
        yield from ("--ops", f"{entry.library.name}:{entry.function}")
    changed: dict[str, object] = {
        "prune": None if options.prune == Options.prune else options.prune,
        "metric": None if options.metric == Options.metric else options.metric,
        "max-size": options.max_size_bytes,
        "max-latency-ms": options.max_latency_ms,
        "budget-s": None if options.budget_s == Options.budget_s else options.budget_s,
        "labels": options.labels,
        "license": options.license,
    }
    changed |= {entry.name.replace("_", "-"): getattr(options.data, entry.name) for entry in fields(options.data)}
    for option, value in changed.items():
        if value is True:
            yield f"--{option}"
        elif value not in (None, False):
            yield from (f"--{option}", _text(value))


def _text(value: object) -> str:
    if isinstance(value, Path):
        return value.name
    return f"{value:g}" if isinstance(value, float) else str(value)
