"""What a user may say about the data; everything left out is inferred from the model's inputs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class DataOptions:
    """Pre-processing of images as flags, a file for these and for sound, and where labels are in a table.

    Flags are texts as a command line has them; they take precedence over the file.
    """

    preprocess: Path | None = None
    """A TOML file with a table `image` or `audio`, and `input` where the model has several."""
    resize: str | None = None
    """`224x224`, width first."""
    crop: bool = False
    """Cover the size and cut the centre out, instead of distorting."""
    colour: str | None = None
    layout: str | None = None
    mean: str | None = None
    """`0.485,0.456,0.406`."""
    std: str | None = None
    scale: str | None = None
    """What a pixel of 0..255 is multiplied by, `0.00392` or `1/255`."""
    dtype: str | None = None
    label_column: str | None = None
    """Of a table; `label` where there is one of that name."""

    @property
    def preprocesses(self) -> bool:
        """Whether any pre-processing is asked for."""
        return any(
            getattr(self, field.name) not in (None, False) for field in fields(self) if field.name != "label_column"
        )
