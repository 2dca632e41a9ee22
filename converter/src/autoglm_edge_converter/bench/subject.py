"""What is measured: a model file, or the variants of a bundle with its golden set as inputs."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_converter.bench.inputs import random_feeds
from autoglm_edge_converter.errors import NotAModel
from autoglm_edge_converter.source import fix_shapes
from autoglm_edge_converter.tensors import Feed, input_ports
from autoglm_edge_protocol import golden
from autoglm_edge_protocol.bundle import opened, read_manifest

RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Form:
    """One model file to be timed. `problem` says why it cannot be tried at all."""

    id: str
    model: Path
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
    """Give what is at `path`: an ONNX model, a bundle directory, or a packed bundle, unpacked meanwhile.

    Raises NotAModel, BadOption, UnknownShape, autoglm_edge_protocol.errors.ProtocolError, OSError.
    """
    if path.is_file() and path.suffix != ".bundle":
        yield _of_model(path, shapes, ops, seed)
        return
    with opened(path) as directory:
        yield _of_bundle(directory)


def _of_model(path: Path, shapes: Mapping[str, tuple[int, ...]], ops: Sequence[Path], seed: int) -> Subject:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no types

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, UnicodeDecodeError) as error:
        raise NotAModel(f"{path} is not an ONNX model, or is cut short ({error}): export or copy it again") from None
    ports = fix_shapes(input_ports(graph), shapes)
    if not ports:
        raise NotAModel(f"{path} takes no input: give an ONNX model or a bundle")
    form = Form(path.stem, path.resolve(), tuple(library.resolve() for library in ops))
    return Subject(path.name, (form,), tuple(random_feeds(ports, seed)), "random numbers")


def _of_bundle(directory: Path) -> Subject:
    manifest = read_manifest(directory)
    forms = []
    for variant in manifest.variants:
        known = variant.needs.runtime == RUNTIME
        libraries = variant.needs.custom_ops.get(platform.machine(), ())
        forms.append(
            Form(
                variant.id,
                (directory / variant.model).resolve(),
                tuple((directory / library).resolve() for library in libraries),
                None if known else f"the runtime {variant.needs.runtime} is not known here",
            )
        )
    names = [spec.name for spec in manifest.variants[0].inputs]
    samples = golden.load(directory / manifest.golden)
    feeds = tuple(dict(zip(names, sample.inputs, strict=True)) for sample in samples)
    return Subject(str(manifest.id), tuple(forms), feeds, f"{len(feeds)} golden inputs")
