"""From what a user names to an `Original`: which framework it is, and how it is loaded.

ONNX and TFLite files are read here; the other frameworks are loaded by programs of their own (see `roads`).
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoglm_edge_converter.errors import BadOption, MissingPackage, NotAModel
from autoglm_edge_converter.given_precision import in_single_precision_too
from autoglm_edge_converter.original import FORMATS, ONNX, TFLITE, Original, Rendition
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.roads.travel import Request, program_of, travel
from autoglm_edge_converter.source import load_source
from autoglm_edge_converter.usercode import file_of, is_reference
from autoglm_edge_protocol.digests import sha256_of_file

AS_IT_CAME = "as it came"
KERAS, SAVEDMODEL, PYTORCH = "keras", "savedmodel", "pytorch"

_DEFAULT_FORMATS = {ONNX: (ONNX,), TFLITE: (TFLITE,)}
"""What variants are made in when the user does not say; the other frameworks have both."""

_SUFFIXES = {
    ".onnx": ONNX,
    ".tflite": TFLITE,
    ".keras": KERAS,
    ".h5": KERAS,
    ".hdf5": KERAS,
    ".pt2": PYTORCH,
}


@dataclass(frozen=True)
class Loading:
    """What decides how a model is loaded."""

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    formats: tuple[str, ...] = ()
    """Of `original.FORMATS`; empty: what suits the framework."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Of the framework's road: `state_dict`, `signature`, `finetune`, ..."""


def framework_of(model: str) -> str:
    """Return the framework of a model by its name and, where that does not tell, by its first bytes.

    Raises NotAModel.
    """
    if is_reference(model):
        return PYTORCH
    path = Path(model)
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return SAVEDMODEL
        raise NotAModel(f"{path} is a folder without saved_model.pb: give a model file, or a SavedModel's folder")
    if path.suffix.lower() in (".pt", ".pth"):
        raise NotAModel(
            f"{path} holds PyTorch weights without their code: give the model as module.py:function "
            f"with --state-dict {path.name}, or export it with torch.export.save to a .pt2 file"
        )
    return _SUFFIXES.get(path.suffix.lower()) or _by_content(path)


def stem_of(model: str) -> str:
    """Return what a bundle of this model is called when the user does not say."""
    return model.rpartition(":")[2] if is_reference(model) else Path(model).stem


def _by_content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        return ONNX
    if head[4:8] == b"TFL3":
        return TFLITE
    if head == b"\x89HDF\r\n\x1a\n":
        return KERAS
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return KERAS if "config.json" in archive.namelist() else PYTORCH
    return ONNX


def load_original(model: str, loading: Loading, scratch: Path, progress: Progress) -> Original:
    """Load a model of any framework and have its float files written below `scratch`.

    Raises ConversionError, OSError.
    """
    path = file_of(model) if is_reference(model) else Path(model)
    if not path.exists():
        raise NotAModel(f"{path} does not exist: give a model file, a SavedModel's folder, or module.py:function")
    framework = framework_of(model)
    formats = formats_of(framework, loading.formats)
    if framework == ONNX:
        return _from_onnx(path, loading.shapes, formats, scratch, progress)
    if framework == TFLITE:
        return _from_tflite(path, loading.shapes, scratch, progress)
    request = Request(model, scratch, formats, loading.shapes, loading.options)
    found = travel(program_of(framework), request, progress)
    sha256, size_bytes = _content(path, loading.options)
    original = Original(
        path=path,
        framework=framework,
        sha256=sha256,
        size_bytes=size_bytes,
        inputs=found.inputs,
        outputs=found.outputs,
        runnable=found.runnable,
        renditions=found.renditions,
        versions=found.versions,
        notes=found.notes,
        precision=found.precision,
    )
    return in_single_precision_too(original, scratch)


def check_formats(wanted: Sequence[str]) -> None:
    """Refuse a format that is not known. Raises BadOption."""
    unknown = sorted(set(wanted) - set(FORMATS))
    if unknown:
        raise BadOption(f"--format {unknown[0]!r} is not known: choose {' or '.join(FORMATS)}")


def formats_of(framework: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the formats to make variants in. Raises BadOption."""
    check_formats(wanted)
    if framework == TFLITE and ONNX in wanted:
        raise BadOption("--format onnx: there is no faithful road from TFLite to ONNX: give the model it was made from")
    chosen = tuple(wanted) or _DEFAULT_FORMATS.get(framework, FORMATS)
    return tuple(name for name in FORMATS if name in chosen)


def _from_onnx(
    path: Path, shapes: Mapping[str, tuple[int, ...]], formats: Sequence[str], scratch: Path, progress: Progress
) -> Original:
    source = load_source(path, shapes)
    runnable = scratch / "original.onnx"
    runnable.write_bytes(source.proto.SerializeToString(deterministic=True))
    progress.step(f"{path.name}, opset {source.opset}")
    original = Original(
        path=path,
        framework=ONNX,
        sha256=source.sha256,
        size_bytes=source.size_bytes,
        inputs=source.inputs,
        outputs=source.outputs,
        runnable=runnable,
        renditions=(Rendition(ONNX, runnable, AS_IT_CAME),),
    )
    original = in_single_precision_too(original, scratch)
    renditions = original.renditions if ONNX in formats else ()
    if TFLITE in formats:
        renditions += (_onnx_to_tflite(original.single or runnable, shapes, scratch, progress),)
    return replace(original, renditions=renditions)


def _onnx_to_tflite(model: Path, shapes: Mapping[str, tuple[int, ...]], scratch: Path, progress: Progress) -> Rendition:
    try:
        from autoglm_edge_converter.roads.onnx_to_tflite import to_tflite
    except ModuleNotFoundError as error:
        raise MissingPackage("TFLite variants", "tflite", error.name or "ai-edge-litert") from None
    fixed = {name: tuple(shape) for name, shape in shapes.items()}
    return to_tflite(model, scratch / "from-onnx.tflite", fixed, progress)


def _from_tflite(path: Path, shapes: Mapping[str, tuple[int, ...]], scratch: Path, progress: Progress) -> Original:
    try:
        from autoglm_edge_converter.tflite.source import load_tflite
    except ModuleNotFoundError as error:
        raise MissingPackage("TFLite models", "tflite", error.name or "ai-edge-litert") from None
    found = load_tflite(path, shapes, scratch)
    progress.step(path.name)
    return found


def _content(path: Path, options: Mapping[str, object]) -> tuple[str, int]:
    """Return digest and size of all files that make the original."""
    weights = options.get("state_dict")
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    files += [Path(str(weights))] if weights else []
    if len(files) == 1:
        return sha256_of_file(files[0]), files[0].stat().st_size
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256_of_file(file)}\n".encode())
    return digest.hexdigest(), sum(file.stat().st_size for file in files)
