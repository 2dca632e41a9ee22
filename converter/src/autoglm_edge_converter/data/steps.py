"""The steps from a picture or sound to the model's input: flags, then the file, then what its shape suggests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import tomllib
from pydantic import ValidationError

from autoglm_edge_converter.data.fit import written
from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.errors import BadOption, SampleMismatch
from autoglm_edge_converter.tensors import Port
from autoglm_edge_protocol.documents import Part, first_problem
from autoglm_edge_protocol.preprocessing import AudioSteps, ImageSteps

Values = dict[str, object]
S = TypeVar("S", bound=Part)

_LARGEST_FILE_BYTES = 64 * 1024
_IMAGE_CHANNELS = (1, 3)
_FLAGS = ("resize", "colour", "layout", "mean", "std", "scale", "dtype")


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """The steps, and what of them was assumed."""

    steps: S
    assumed: tuple[str, ...]


def read_preprocess_file(path: Path) -> dict[str, Values | str]:
    """Return the tables of a `--preprocess` file. Raises BadOption, OSError."""
    if not path.is_file():
        raise BadOption(f"{path} is not a file: give a TOML file with a table [image] or [audio]")
    if path.stat().st_size > _LARGEST_FILE_BYTES:
        raise BadOption(f"{path} has more than {_LARGEST_FILE_BYTES} bytes: it is no file of pre-processing steps")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadOption(f"{path} is not TOML: {error}") from None
    unknown = sorted(set(tables) - {"input", "image", "audio"})
    if unknown:
        raise BadOption(f"{path}: {unknown[0]!r} is not known, it may hold input, [image] and [audio]")
    return tables


def file_values(options: DataOptions, table: str) -> Values:
    """Return one table of the `--preprocess` file, empty without one. Raises BadOption, OSError."""
    if options.preprocess is None:
        return {}
    values = read_preprocess_file(options.preprocess).get(table, {})
    if not isinstance(values, dict):
        raise BadOption(f"{options.preprocess}: {table} is a table, written [{table}]")
    return dict(values)


def image_steps(options: DataOptions, port: Port) -> Resolved[ImageSteps]:
    """Return the steps for an image input. Raises BadOption, SampleMismatch, OSError."""
    said = file_values(options, "image") | _flags(options)
    inferred = _from_shape(port, str(said.get("layout", "")) or None) | _numbers_of(port, said)
    if said.get("crop"):
        inferred.pop("resize", None)
    found = inferred | said
    for key in ("resize", "crop"):
        if isinstance(found.get(key), str):
            found[key] = _size(str(found[key]), key)
    assumed = tuple(sorted(key for key in inferred if key not in said))
    return Resolved(_validated(ImageSteps, found, options.preprocess), assumed)


def audio_steps(options: DataOptions, port: Port) -> Resolved[AudioSteps]:
    """Return the steps for a sound input. Raises BadOption, OSError."""
    said = file_values(options, "audio")
    window = port.shape[-1] if port.shape else None
    inferred: Values = {"dtype": port.dtype} | ({"window": window} if window else {})
    assumed = tuple(sorted(key for key in inferred if key not in said))
    return Resolved(_validated(AudioSteps, inferred | said, options.preprocess), assumed)


def _flags(options: DataOptions) -> Values:
    values: Values = {name: getattr(options, name) for name in _FLAGS if getattr(options, name) is not None}
    for name in ("mean", "std"):
        if name in values:
            values[name] = [_number(text, name) for text in str(values[name]).split(",")]
    if "scale" in values:
        values["scale"] = _number(str(values["scale"]), "scale")
    if options.crop:
        values["fit"] = "cover"
    return values


def _number(text: str, name: str) -> float:
    try:
        top, slash, bottom = text.partition("/")
        return float(top) / float(bottom) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise BadOption(f"--{name}: {text!r} is not a number") from None


def _size(text: str, key: str) -> Values:
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if found is None:
        raise BadOption(f"{key} {text!r} is not a size: write width and height, 224x224")
    return {"width": int(found[1]), "height": int(found[2] or found[1])}


def _from_shape(port: Port, layout: str | None) -> Values:
    shape = port.shape
    if shape is None or len(shape) not in (3, 4):
        shown = "unknown" if shape is None else written(shape)
        raise SampleMismatch(
            f"input {port.name!r} takes {shown}, which is no image [N,C,H,W] or [N,H,W,C]: give arrays, or a Python "
            "function as module.py:function"
        )
    if len(shape) == 3:
        return {"colour": "grey"} | _resize(shape[1], shape[2])
    wanted = layout or _layout(port, shape)
    channels, height, width = (shape[1], *shape[2:]) if wanted == "nchw" else (shape[3], *shape[1:3])
    values: Values = {"layout": wanted, "colour": "grey" if channels == 1 else "rgb"}
    return values | _resize(height, width)


def _layout(port: Port, shape: tuple[int | None, ...]) -> str:
    if shape[1] in _IMAGE_CHANNELS:
        return "nchw"
    if shape[3] in _IMAGE_CHANNELS:
        return "nhwc"
    if None in (shape[1], shape[3]):
        return "nchw" if shape[1] is None else "nhwc"
    raise SampleMismatch(
        f"input {port.name!r} takes {written(shape)}, in which neither the second nor the last axis is 1 or 3 "
        "channels: give arrays, or a Python function as module.py:function"
    )


def _resize(height: int | None, width: int | None) -> Values:
    return {"resize": {"width": width, "height": height}} if height and width else {}


def _numbers_of(port: Port, said: Mapping[str, object]) -> Values:
    """Infer dtype and scale: pixels as they are for whole numbers, 0..1 for others, unless the mean is of pixels."""
    values: Values = {"dtype": port.dtype}
    mean = said.get("mean", 0.0)
    numbers = mean if isinstance(mean, list) else [mean]
    of_pixels = any(isinstance(number, int | float) and abs(number) > 2 for number in numbers)
    values["scale"] = 1 / 255 if "float" in port.dtype and not of_pixels else 1.0
    return values


def _validated(kind: type[S], values: Mapping[str, object], path: Path | None) -> S:
    unknown = sorted(set(values) - set(kind.model_fields))
    if unknown:
        raise BadOption(f"{path}: {unknown[0]!r} is not known, choose among {', '.join(kind.model_fields)}")
    plain = {
        key: [value] if key in ("mean", "std") and not isinstance(value, list) else value
        for key, value in values.items()
    }
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        raise BadOption(f"pre-processing: {first_problem(error)}") from None
