"""Which files this process holds open, to see that what a test opened is closed again."""

from __future__ import annotations

import contextlib
import gc
import os
from collections import Counter


def open_files() -> Counter[tuple[int, int]]:
    """How many descriptors lead to each file, socket and memory (device and inode).

    What is there after less what was there before is what has been left open. Their mere numbers cannot be compared:
    earlier tests leave objects, and these are closed by the collector or by a thread that ends, whenever that is.
    """
    gc.collect()
    found: Counter[tuple[int, int]] = Counter()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing, or closed since
            status = os.fstat(int(descriptor))
            found[status.st_dev, status.st_ino] += 1
    return found
