"""Objects of system shared memory, as shm_open makes them: files in a folder, until they are taken away."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

FOLDER = Path("/dev/shm")


class SharedObject:
    """One object. Not multiprocessing's: that leaves a process behind, which tests that count processes find."""

    def __init__(self, size: int) -> None:
        self.key = f"/autoglm-edge-{uuid.uuid4().hex}"
        self.path = FOLDER / self.key.lstrip("/")
        self.path.write_bytes(bytes(size))

    def write(self, array: npt.NDArray[np.generic], offset: int = 0) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(array.tobytes())

    def read(self, like: npt.NDArray[np.generic], offset: int = 0) -> npt.NDArray[np.generic]:
        """Return an array of the dtype and shape of another."""
        return np.frombuffer(self.path.read_bytes(), like.dtype, like.size, offset).reshape(like.shape)


@contextmanager
def shared_object(size: int) -> Iterator[SharedObject]:
    """Make an object and take it away again."""
    made = SharedObject(size)
    try:
        yield made
    finally:
        made.path.unlink()
