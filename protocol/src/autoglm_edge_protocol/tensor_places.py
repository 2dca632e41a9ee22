"""Where the bytes of a tensor are."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

Data = bytes | mmap.mmap
"""The bytes of a model's file."""
REST = 1 << 62
"""A size: up to the end of the file."""


@dataclass(frozen=True)
class TensorPlace:
    """A piece of a file."""

    file: str | None
    """A path relative to the model's folder; None: the model's own file."""
    offset: int
    size_bytes: int
