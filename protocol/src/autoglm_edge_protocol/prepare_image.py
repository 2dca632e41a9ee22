"""From pixels to an input of the model: the steps of `ImageSteps`, in numpy, with Pillow for resizing.

One of the few modules here that need numpy; a process that must stay light does not import it. Resizing is Pillow's
on the workstation and on the device, so that both give the same bytes; Pillow is loaded when something is resized or
made grey.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_protocol.preprocessing import ImageSteps, Size

Pixels = npt.NDArray[np.uint8]


def image_input(pixels: Pixels, steps: ImageSteps) -> npt.NDArray[Any]:
    """Return the tensor of an RGB image: uint8 [height, width, 3] to [1, C, H, W] or [1, H, W, C] of `steps.dtype`.

    Raises ValueError when the image is no such array, or is smaller than the crop.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"an RGB image is uint8 [height, width, 3], not {pixels.dtype} {list(pixels.shape)}")
    shaped = _coloured(pixels, steps)
    if steps.resize is not None:
        shaped = _fitted(shaped, steps, steps.resize)
    if steps.crop is not None:
        shaped = _centre(shaped, steps.crop)
    numbers = (shaped.astype(np.float64) * steps.scale - np.array(steps.mean)) / np.array(steps.std)
    tensor = as_dtype(numbers, steps.dtype)
    return np.ascontiguousarray(tensor.transpose(2, 0, 1) if steps.layout == "nchw" else tensor)[None]


def as_dtype(numbers: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[Any]:
    """Convert to a dtype; whole-number ones are rounded half to even and saturate."""
    if np.issubdtype(np.dtype(dtype), np.floating):
        return numbers.astype(dtype)
    bounds = np.iinfo(dtype)
    # 64-bit bounds are no doubles: the nearest one above the largest would overflow.
    top = np.nextafter(float(bounds.max), 0.0) if bounds.bits == 64 else float(bounds.max)
    return np.clip(np.rint(numbers), float(bounds.min), top).astype(dtype)


def _coloured(pixels: Pixels, steps: ImageSteps) -> Pixels:
    if steps.colour == "grey":
        from PIL import Image

        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return pixels[..., ::-1] if steps.colour == "bgr" else pixels


def _fitted(pixels: Pixels, steps: ImageSteps, size: Size) -> Pixels:
    if steps.fit == "stretch":
        return _resized(pixels, size.width, size.height)
    height, width = pixels.shape[:2]
    pick = max if steps.fit == "cover" else min
    scale = pick(size.width / width, size.height / height)
    # Half up, not half to even as Python's round: what every language can do without thought.
    scaled = _resized(pixels, max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5)))
    return _centre(scaled, size) if steps.fit == "cover" else _padded(scaled, size, steps.pad_value)


def _resized(pixels: Pixels, width: int, height: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return resized.reshape(height, width, pixels.shape[2])


def _centre(pixels: Pixels, size: Size) -> Pixels:
    height, width = pixels.shape[:2]
    if width < size.width or height < size.height:
        raise ValueError(f"the image is {width}x{height}, smaller than the crop {size}")
    left, top = (width - size.width) // 2, (height - size.height) // 2
    return pixels[top : top + size.height, left : left + size.width]


def _padded(pixels: Pixels, size: Size, value: int) -> Pixels:
    height, width = pixels.shape[:2]
    left, top = (size.width - width) // 2, (size.height - height) // 2
    canvas = np.full((size.height, size.width, pixels.shape[2]), value, np.uint8)
    canvas[top : top + height, left : left + width] = pixels
    return canvas
