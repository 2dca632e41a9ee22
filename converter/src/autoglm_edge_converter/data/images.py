"""Images of a folder as inputs of the model, decoded by Pillow.

Orientation as the camera noted it (EXIF) is applied, transparency is dropped, 16-bit greys are brought to 8 bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from autoglm_edge_converter.data.dataset import Dataset
from autoglm_edge_converter.data.fit import check, written
from autoglm_edge_converter.data.folder import Files, labels_of
from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.data.steps import Resolved, image_steps
from autoglm_edge_converter.errors import SampleMismatch, UnreadableSample
from autoglm_edge_converter.limits import DATA_LIMITS
from autoglm_edge_converter.tensors import Feed, Port
from autoglm_edge_protocol.prepare_image import image_input
from autoglm_edge_protocol.preprocessing import ImageSteps, Preprocessing

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def images(files: Files, port: Port, options: DataOptions, class_names: Sequence[str] | None) -> Dataset:
    """Return one image per file, prepared for the input. Raises BadOption, SampleMismatch, OSError."""
    resolved = image_steps(options, port)
    steps = resolved.steps

    def load(index: int) -> Feed:
        where = str(files.paths[index])
        try:
            tensor = image_input(read_image(files.paths[index]), steps)
        except ValueError as error:
            raise UnreadableSample(f"{where}: {error}") from None
        if port.shape is not None and len(port.shape) == 3:
            tensor = tensor.reshape(1, *tensor.shape[2:] if steps.layout == "nchw" else tensor.shape[1:3])
        _check_channels(tensor.shape, port, steps)
        check(tensor, Port(port.name, port.dtype, _one(port.shape)), where)
        return {port.name: tensor}

    numbered = labels_of(files, class_names)
    return Dataset(
        names=files.names,
        load=load,
        digest=files.digest,
        labels=numbered.labels if numbered else None,
        preprocessing=Preprocessing(input=port.name, image=steps),
        notes=(*_note(resolved, port), *(numbered.notes if numbered else ())),
        class_names=numbered.names if numbered else (),
    )


def _one(shape: tuple[int | None, ...] | None) -> tuple[int | None, ...] | None:
    return None if shape is None else (1, *shape[1:])


def _check_channels(found: Sequence[int], port: Port, steps: ImageSteps) -> None:
    if port.shape is None or len(port.shape) != 4:
        return
    axis = 1 if steps.layout == "nchw" else 3
    if port.shape[axis] not in (None, found[axis]):
        raise SampleMismatch(
            f"images are {steps.colour}, {steps.layout}: {found[axis]} channels, but {port.name!r} takes "
            f"{written(port.shape)}: give --colour or --layout"
        )


def _note(resolved: Resolved[ImageSteps], port: Port) -> tuple[str, ...]:
    if not resolved.assumed:
        return ()
    steps = resolved.steps
    size = f"resized to {steps.resize} ({steps.fit})" if steps.resize else "in their own size"
    scale = "1/255" if steps.scale == 1 / 255 else f"{steps.scale:g}"
    numbers = f"pixels x {scale}, mean {_numbers(steps.mean)}, std {_numbers(steps.std)}"
    return (
        f"images become {port.name!r} {size}, {steps.colour}, {steps.layout}, {numbers}, {steps.dtype}; assumed from "
        f"the model: {', '.join(resolved.assumed)} (set with --preprocess or flags)",
    )


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image file as RGB, uint8 [height, width, 3]. Raises UnreadableSample."""
    from PIL import Image, ImageOps

    try:
        if path.stat().st_size > DATA_LIMITS.image_file_bytes:
            raise UnreadableSample(f"{path} has more than {DATA_LIMITS.image_file_bytes} bytes: give a smaller image")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and of large images; the limit here is its own
            with Image.open(path) as image:
                if image.width * image.height > DATA_LIMITS.image_pixels:
                    size = f"{image.width}x{image.height}"
                    raise UnreadableSample(f"{path} is {size}, more than {DATA_LIMITS.image_pixels} pixels: shrink it")
                upright = ImageOps.exif_transpose(_eight_bits(image))
                return np.asarray(upright.convert("RGB"))
    except (UnreadableSample, KeyboardInterrupt):
        raise
    except Exception as error:
        # Pillow's readers raise some twenty kinds on damaged files; all mean the same to a user.
        reason = (str(error) or type(error).__name__).splitlines()[0].replace(str(path), path.name)
        raise UnreadableSample(f"{path} cannot be read as an image ({reason}): replace it or take it away") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        numbers = np.asarray(image).astype(np.float64)
        scale = 256.0 if numbers.max(initial=0.0) > 255 else 1.0
        return Image.fromarray(np.clip(numbers / scale, 0, 255).astype(np.uint8))
    return image
