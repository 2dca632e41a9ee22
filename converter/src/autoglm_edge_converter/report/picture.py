"""A tensor as a small picture: PNG (ISO/IEC 15948) as a `data:` address, written with zlib alone."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

from autoglm_edge_converter.tensors import Array

LONGEST_PX = 112
LEAST_SIDE, MOST_SIDE = 8, 4096
Bytes = npt.NDArray[np.uint8]


def picture(array: Array) -> str | None:
    """Return one sample, [1,C,H,W] or [1,H,W,C] with one or three channels, as a picture; None where it is no image.

    Values are stretched from their own least and largest to black and white.
    """
    image = as_image(array)
    return None if image is None else f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


def as_image(array: Array) -> Bytes | None:
    """Return uint8 [H,W,1] or [H,W,3], at most `LONGEST_PX` long; None where the tensor is not image-like."""
    if array.dtype.kind not in "fiub" or array.ndim not in (3, 4) or (array.ndim == 4 and len(array) < 1):
        return None
    sample = array[0] if array.ndim == 4 else array
    if sample.shape[0] in (1, 3) and sample.shape[2] not in (1, 3):
        sample = np.moveaxis(sample, 0, -1)
    if sample.shape[2] not in (1, 3) or not all(LEAST_SIDE <= side <= MOST_SIDE for side in sample.shape[:2]):
        return None
    step = -(-max(sample.shape[:2]) // LONGEST_PX)
    values = np.nan_to_num(sample[::step, ::step].astype(np.float64), posinf=0.0, neginf=0.0)
    low, spread = float(values.min()), float(np.ptp(values)) or 1.0
    return np.asarray(np.round((values - low) / spread * 255), np.uint8)


def png(image: Bytes) -> bytes:
    """Return uint8 [H,W,1] or [H,W,3] as a PNG file."""
    height, width, channels = image.shape
    rows = b"".join(b"\0" + image[row].tobytes() for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
