"""Copies of images, unpacked, to be looked into or changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoglm_edge_firmware.errors import ImageUnusable
from autoglm_edge_firmware.media.compression import kind_of, opened
from autoglm_edge_firmware.progress import Progress

_PIECE_BYTES = 1 << 20
_NOTHING = bytes(_PIECE_BYTES)


@contextmanager
def at_hand(existing: Path, progress: Progress) -> Iterator[Path]:
    """Give an image that can be looked into: itself, or its unpacked copy.

    Raises:
        ImageUnusable: it cannot be unpacked, or there is no room for that.
    """
    if existing.is_dir() or kind_of(existing) == "plain":
        yield existing
        return
    with copied(existing, existing.parent, progress) as copy:
        yield copy


@contextmanager
def copied(existing: Path, folder: Path, progress: Progress) -> Iterator[Path]:
    """Give an unpacked copy in a folder, which is gone afterwards unless it was given another name.

    Raises:
        ImageUnusable: the image is damaged, or there is no room.
    """
    copy = folder / f".{existing.name}.{os.getpid()}.part"
    packed = copy.with_name(copy.name + ".packed")
    try:
        # A claim may be in the image already.
        copy.touch(mode=0o600)
        with opened(existing) as source, copy.open("wb") as target:
            done = 0
            while piece := source.read(_PIECE_BYTES):
                # Holes stay holes: an image is mostly empty.
                if piece == _NOTHING:
                    target.seek(len(piece), os.SEEK_CUR)
                else:
                    target.write(piece)
                done += len(piece)
                progress(f"copying {existing.name}", done, 0)
            target.truncate(done)
        shutil.copymode(existing, copy)
        yield copy
    except OSError as error:
        raise ImageUnusable(folder, f"the image cannot be written there: {error.strerror or error}") from None
    finally:
        copy.unlink(missing_ok=True)
        packed.unlink(missing_ok=True)
