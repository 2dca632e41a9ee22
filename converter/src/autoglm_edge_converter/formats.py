"""What a written file means for a device: its format, the runtime that runs it, and which versions of that read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from autoglm_edge_converter.original import ONNX, TFLITE
from autoglm_edge_converter.targets import MB, OLDEST_READER, RUNTIMES, Demands, Runtime, newest_opset


@dataclass(frozen=True)
class Readers:
    """Which runtimes read a file, and the oldest version of each that does."""

    runtime: str
    oldest: str | None
    """None: not known."""
    others: tuple[tuple[str, str], ...] = ()
    """Other runtimes that read the same file."""


def format_of(path: Path) -> str:
    """Return the format of a written file."""
    return TFLITE if path.suffix == ".tflite" else ONNX


def readers_of(path: Path) -> Readers:
    """Return the runtimes that read a file. Raises OSError."""
    return _READERS[format_of(path)](path)


def installed_runtime(form: str) -> str:
    """Return the runtime that a format is measured with here, `onnxruntime 1.32.0`."""
    name, package = _INSTALLED[form]
    try:
        return f"{name} {version(package)}"
    except PackageNotFoundError:
        return name


def unfit(path: Path, memory_bytes: int | None, demands: Demands) -> str | None:
    """Return why a written file does not suit the targets, None where it does. By table; nothing is run.

    Raises OSError.
    """
    form = format_of(path)
    for runtime in demands.oldest_for(form):
        if reason := _UNREADABLE[form](path, runtime):
            return reason
    if demands.memory_bytes is not None and memory_bytes is not None and memory_bytes > demands.memory_bytes:
        return f"it takes {memory_bytes / MB:.0f} MB of memory, the smallest target has {demands.memory_bytes // MB} MB"
    return None


def opset_in(path: Path) -> int:
    """Return the operator set of a written ONNX model. Raises OSError."""
    import onnx

    from autoglm_edge_converter.source import opset_of

    return opset_of(onnx.load(path, load_external_data=False))


def _onnx_readers(path: Path) -> Readers:
    return Readers(RUNTIMES[ONNX][0], OLDEST_READER.get(opset_in(path)))


def _tflite_readers(path: Path) -> Readers:
    from autoglm_edge_converter.tflite.flatbuffer import read_model
    from autoglm_edge_converter.tflite.operators import oldest_reader

    model = read_model(path.read_bytes(), path.name)
    litert, tflite = (oldest_reader(model, name) for name in RUNTIMES[TFLITE])
    return Readers(RUNTIMES[TFLITE][0], litert, ((RUNTIMES[TFLITE][1], tflite),) if tflite else ())


def _onnx_unreadable(path: Path, runtime: Runtime) -> str | None:
    opset, newest = opset_in(path), newest_opset(runtime.oldest)
    if opset <= newest:
        return None
    return (
        f"operator set {opset} needs onnxruntime {OLDEST_READER.get(opset, 'newer')}, the oldest supported of the "
        f"targets reads up to {newest}"
    )


def _tflite_unreadable(path: Path, runtime: Runtime) -> str | None:
    from autoglm_edge_converter.tflite.flatbuffer import read_model
    from autoglm_edge_converter.tflite.operators import unreadable

    found = unreadable(read_model(path.read_bytes(), path.name), runtime.name, runtime.oldest)
    return f"the oldest runtime of the targets cannot load it: {found[0]}" if found else None


_READERS: dict[str, Callable[[Path], Readers]] = {ONNX: _onnx_readers, TFLITE: _tflite_readers}
_UNREADABLE: dict[str, Callable[[Path, Runtime], str | None]] = {ONNX: _onnx_unreadable, TFLITE: _tflite_unreadable}
_INSTALLED = {ONNX: ("onnxruntime", "onnxruntime"), TFLITE: ("LiteRT", "ai-edge-litert")}
