"""How a live input and its answer travel to the shadow: arrays in an anonymous file, whose descriptor is sent.

A socket would hold some 200 KiB, less than one picture. The receiver sends one byte back for each sample that it is
done with, so that the sender knows how many are on the way.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SAMPLE_BYTES = 16 * 1024 * 1024
"""Larger samples are not taken: two may be in memory at a time."""
_HEADER_BYTES = 256
DONE = b"."


def fits(arrays: Sequence[Array]) -> bool:
    """Whether these arrays can be a sample: numbers, and not too many of them."""
    return sum(array.nbytes for array in arrays) <= SAMPLE_BYTES and not any(array.dtype.hasobject for array in arrays)


def send(outlet: socket.socket, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
    """Send a sample. Raises OSError, BlockingIOError where a non-blocking socket takes none now."""
    descriptor = _anonymous_file()
    with os.fdopen(descriptor, "w+b") as file:
        for array in (*inputs, *outputs):
            np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        file.seek(0)
        header = json.dumps({"inputs": len(inputs), "outputs": len(outputs)}).encode()
        socket.send_fds(outlet, [header], [descriptor])


def receive(inlet: socket.socket) -> tuple[list[Array], list[Array]] | None:
    """Return inputs and outputs of the next sample, None for one that is no such thing. Raises OSError."""
    header, descriptors, _, _ = socket.recv_fds(inlet, _HEADER_BYTES, 1)
    try:
        if len(descriptors) != 1:
            return None
        counts = json.loads(header)
        with os.fdopen(descriptors.pop(), "rb") as file:
            inputs = [np.lib.format.read_array(file, allow_pickle=False) for _ in range(counts["inputs"])]
            outputs = [np.lib.format.read_array(file, allow_pickle=False) for _ in range(counts["outputs"])]
        return inputs, outputs
    except (ValueError, KeyError, TypeError, OSError):
        return None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("sample", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
