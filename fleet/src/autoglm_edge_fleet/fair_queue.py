"""A queue in which every device gets its turn, however much another asks for. Pure; knows nothing of blocks.

Each device has a bounded queue of its own; `pop` goes round over the devices that wait. What waits already is not
queued twice, so that a request repeated out of impatience costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Admission(Enum):
    """What became of an item that was to be queued."""

    QUEUED = "queued"
    REPEATED = "repeated"
    FULL = "full"


class FairQueue(Generic[T]):
    """A bounded first-in, first-out queue per device, served in turn."""

    def __init__(self, per_device: int) -> None:
        self._per_device = per_device
        self._queues: OrderedDict[str, dict[T, None]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def waiting(self, device: str) -> int:
        """Return how many items wait for the device."""
        return len(self._queues.get(device, ()))

    def push(self, device: str, item: T) -> Admission:
        """Queue an item for a device, unless it waits already or the device's queue is full."""
        queue = self._queues.get(device)
        if queue is None:
            queue = self._queues[device] = {}
        if item in queue:
            return Admission.REPEATED
        if len(queue) >= self._per_device:
            return Admission.FULL
        queue[item] = None
        self._length += 1
        return Admission.QUEUED

    def pop(self) -> tuple[str, T] | None:
        """Take the oldest item of the device whose turn it is; None when nothing waits."""
        if not self._queues:
            return None
        device, queue = next(iter(self._queues.items()))
        item = next(iter(queue))
        del queue[item]
        self._length -= 1
        if queue:
            self._queues.move_to_end(device)
        else:
            del self._queues[device]
        return device, item

    def drop(self, device: str) -> int:
        """Forget what waits for a device; returns how much it was."""
        dropped = len(self._queues.pop(device, ()))
        self._length -= dropped
        return dropped
