"""What is measured: a model file, or the variants of a bundle with its golden set as inputs."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoglm_edge_converter.bench.inputs import random_feeds
from autoglm_edge_converter.errors import MissingPackage, NotAModel
from autoglm_edge_converter.loading import framework_of
from autoglm_edge_converter.original import ONNX, TFLITE
from autoglm_edge_converter.source import fix_shapes
from autoglm_edge_converter.targets import RUNTIMES
from autoglm_edge_converter.tensors import Feed, Port, input_ports, numpy_name
from autoglm_edge_protocol import golden
from autoglm_edge_protocol.bundle import opened, read_manifest
from autoglm_edge_protocol.manifest import Variant


@dataclass(frozen=True)
class Form:
    """One model file to be timed. `problem` says why it cannot be tried at all."""

    id: str
    model: Path
    runtime: str
    """Of `RUNTIMES`."""
    ops: tuple[Path, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Subject:
    """The forms of one model, the first of which the others are compared with, and what they are fed."""

    name: str
    forms: tuple[Form, ...]
    feeds: tuple[Feed, ...]
    inputs: str
    """Where `feeds` come from, for the reader."""


@contextmanager
def subject(path: Path, shapes: Mapping[str, tuple[int, ...]], ops: Sequence[Path], seed: int) -> Iterator[Subject]:
    """Give what is at `path`: an ONNX or TFLite model, a bundle directory, or a packed bundle, unpacked meanwhile.

    Raises NotAModel, MissingPackage, BadOption, UnknownShape, autoglm_edge_protocol.errors.ProtocolError, OSError.
    """
    if path.is_file() and path.suffix != ".bundle":
        yield _of_model(path, shapes, ops, seed)
        return
    with opened(path) as directory:
        yield _of_bundle(directory)


def _of_model(path: Path, shapes: Mapping[str, tuple[int, ...]], ops: Sequence[Path], seed: int) -> Subject:
    form = ONNX if framework_of(str(path)) != TFLITE else TFLITE
    ports = fix_shapes(_tflite_ports(path) if form == TFLITE else _onnx_ports(path), shapes)
    if not ports:
        raise NotAModel(f"{path} takes no input: give an ONNX or TFLite model, or a bundle")
    entry = Form(path.stem, path.resolve(), RUNTIMES[form][0], tuple(library.resolve() for library in ops))
    return Subject(path.name, (entry,), tuple(random_feeds(ports, seed)), "random numbers")


def _tflite_ports(path: Path) -> tuple[Port, ...]:
    try:
        from autoglm_edge_converter.tflite.flatbuffer import read_model
    except ModuleNotFoundError as error:
        raise MissingPackage("TFLite models", "tflite", error.name or "ai-edge-litert") from None
    return read_model(path.read_bytes(), str(path)).inputs


def _onnx_ports(path: Path) -> tuple[Port, ...]:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no types

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, UnicodeDecodeError) as error:
        raise NotAModel(f"{path} is not an ONNX model, or is cut short ({error}): export or copy it again") from None
    return input_ports(graph)


def _problem(variant: Variant, known: bool) -> str | None:
    if not known:
        return f"the runtime {variant.needs.runtime} is not known here"
    return "it has custom operators for LiteRT, which bench does not load" if _foreign(variant) else None


def _foreign(variant: Variant) -> bool:
    return bool(variant.needs.custom_op_registerers)


def _of_bundle(directory: Path) -> Subject:
    manifest = read_manifest(directory)
    forms = []
    for variant in manifest.variants:
        known = variant.needs.runtime in (RUNTIMES[ONNX][0], RUNTIMES[TFLITE][0])
        libraries = variant.needs.custom_ops.get(platform.machine(), ())
        forms.append(
            Form(
                variant.id,
                (directory / variant.model).resolve(),
                variant.needs.runtime,
                tuple((directory / library).resolve() for library in libraries),
                _problem(variant, known),
            )
        )
    names = [spec.name for spec in manifest.variants[0].inputs]
    samples = golden.load(directory / manifest.golden)
    states = [state.input for state in manifest.variants[0].states]
    beginning = {spec.name: np.zeros(spec.shape, numpy_name(spec.datatype)) for spec in states}
    feeds = tuple({**dict(zip(names, sample.inputs, strict=True)), **beginning} for sample in samples)
    return Subject(str(manifest.id), tuple(forms), feeds, f"{len(feeds)} golden inputs")
