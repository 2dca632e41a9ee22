"""How much data is read: every bound on what a file or a user's function may give."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataLimits:
    """Upper bounds; what is above one is an error that names it, or is left out with a note."""

    image_pixels: int = 64 * 1000 * 1000
    """Of one image: a small file can claim to unpack to more memory than there is."""
    image_file_bytes: int = 256 * 1024**2
    sound_file_bytes: int = 1024**3
    sound_channels: int = 64
    windows: int = 1000 * 1000
    """Of all recordings together."""
    table_bytes: int = 512 * 1024**2
    table_columns: int = 200 * 1000
    archive_bytes: int = 16 * 1024**3
    """Of the arrays in one `.npz`, unpacked."""
    files: int = 1000 * 1000
    """In a folder."""
    labels_bytes: int = 64 * 1024**2
    """Of `labels.csv`."""
    produced_samples: int = 4096
    """Taken from a user's function."""
    produced_bytes: int = 2 * 1024**3


DATA_LIMITS = DataLimits()
