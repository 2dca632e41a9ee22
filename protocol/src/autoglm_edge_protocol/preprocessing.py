"""How a decoded picture or sound becomes an input of the model: the same steps on the workstation and on the device.

The steps are those of `prepare`, which is the one implementation; a device in another language follows its text.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from autoglm_edge_protocol.documents import Part

LARGEST_SIDE = 16384
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
Numbers = Annotated[tuple[float, ...], Field(min_length=1, max_length=4)]
InputDtype = Literal["float32", "float16", "float64", "uint8", "int8", "int16", "int32", "int64"]


class Size(Part):
    """In pixels."""

    width: Side
    height: Side

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    def fits_in(self, other: Size) -> bool:
        """Tell whether it is no larger than another, in either direction."""
        return self.width <= other.width and self.height <= other.height


class ImageSteps(Part):
    """From a decoded image, 8 bits a channel, to a tensor; applied in the order of the fields."""

    colour: Literal["rgb", "bgr", "grey"] = "rgb"
    """`grey` is ITU-R 601 luma, (299 R + 587 G + 114 B) / 1000, as Pillow rounds it."""
    resize: Size | None = None
    """Bilinear with antialiasing, as Pillow's `BILINEAR` does; absent: the image's own size."""
    fit: Literal["stretch", "cover", "pad"] = "stretch"
    """How another aspect ratio is met: distorted; scaled until it covers the size, the centre cut out; scaled until it
    fits inside, centred on `pad_value`."""
    pad_value: int = Field(default=114, ge=0, le=255)
    crop: Size | None = None
    """The centre cut out after resizing."""
    scale: float = 1.0
    """Each number is `(pixel * scale - mean) / std`, in double precision, then converted to `dtype`."""
    mean: Numbers = (0.0,)
    """One number, or one for each channel in the order of `colour`."""
    std: Numbers = (1.0,)
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: InputDtype = "float32"
    """Whole-number dtypes are rounded half to even and saturate."""

    @property
    def channels(self) -> int:
        """1 for grey, else 3."""
        return 1 if self.colour == "grey" else 3

    @model_validator(mode="after")
    def _consistent(self) -> ImageSteps:
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, self.channels):
                raise ValueError(
                    f"{name} has {len(numbers)} numbers, the image {self.channels} channels: give one each"
                )
        if any(number == 0 for number in self.std):
            raise ValueError("std cannot be 0")
        if self.resize and self.crop and not self.crop.fits_in(self.resize):
            raise ValueError(f"crop {self.crop} is larger than resize {self.resize}")
        return self


class AudioSteps(Part):
    """From decoded sound to a tensor of samples in -1..1; applied in the order of the fields."""

    rate_hz: int | None = Field(default=None, ge=1000, le=384_000)
    """Rate to convert to, by a windowed-sinc filter; absent: the recording's own."""
    window: int | None = Field(default=None, ge=1, le=2**24)
    """Samples of one input, the last one filled up with zeros; absent: the whole recording."""
    hop: int | None = Field(default=None, ge=1, le=2**24)
    """Samples from one window to the next; absent: the window, so that none overlap."""
    normalise: Literal["none", "peak", "rms"] = "none"
    """Each window divided by its largest magnitude, or by its root mean square; silence stays."""
    dtype: InputDtype = "float32"
    """Whole-number dtypes are scaled to their range, rounded half to even, and saturate."""


class Preprocessing(Part):
    """What is done to one input of the model; the other inputs are given as they are."""

    input: str = Field(min_length=1, max_length=512)
    image: ImageSteps | None = None
    audio: AudioSteps | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Preprocessing:
        if (self.image is None) == (self.audio is None):
            raise ValueError("give the steps of either image or audio")
        return self
