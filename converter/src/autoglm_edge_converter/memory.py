"""Telling that memory ran out, whoever says so, and saying it in one line.

Calibration and the building of candidates go on in the main process; candidates run in processes of their own, where
the laboratory sees what becomes of them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from autoglm_edge_converter.errors import ConversionError, OutOfMemory

_SAYINGS = ("bad_alloc", "failed to allocate memory", "can't start new thread", "unable to allocate", "out of memory")
"""Of onnxruntime, LiteRT, Python's threads, numpy and protobuf, whose errors have no type of their own."""


def ran_out(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    told = str(error).lower()
    return isinstance(error, Exception) and any(saying in told for saying in _SAYINGS)


@contextmanager
def memory_watched(model: str) -> Iterator[None]:
    """Raise OutOfMemory in place of an error that means it. What is a line for a user already passes."""
    try:
        yield
    except ConversionError:
        raise
    except Exception as error:
        if ran_out(error):
            raise OutOfMemory(model) from None
        raise
