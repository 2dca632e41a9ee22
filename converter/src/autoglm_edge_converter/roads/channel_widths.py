"""Which channels to keep when a ratio of all is to go. Pure: arrays in, arrays out.

A channel here is what is taken out as a whole: where layers are added to each other, one channel of all of them. Those
that the same layers make are a group; a group never disappears, and keeps a width that vector kernels like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoglm_edge_converter.roads.pruning_schedule import LARGEST_CHANNEL_RATIO

LARGEST_MULTIPLE = 8


@dataclass(frozen=True)
class Candidates:
    """Channels that may go: importance, float [N], the larger the better; the number of its group, int [N]."""

    importance: npt.NDArray[np.float64]
    group: npt.NDArray[np.int64]

    def kept(self, ratio: float) -> npt.NDArray[np.bool_]:
        """Return which stay, bool [N], when this ratio of them is to go; more stay as the ratio falls."""
        order = np.argsort(self.importance, kind="stable")
        going = np.zeros(len(order), bool)
        going[order[: int(ratio * len(order))]] = True
        kept = np.zeros(len(order), bool)
        for group in np.unique(self.group):
            members = np.flatnonzero(self.group == group)
            best = members[np.argsort(-self.importance[members], kind="stable")]
            kept[best[: width(len(members), int((~going[members]).sum()))]] = True
        return kept


def width(whole: int, wanted: int) -> int:
    """Return how many of `whole` channels to keep where `wanted` would do: at least a tenth, a multiple, not more."""
    least = max(wanted, 1, -int(-whole * (1 - LARGEST_CHANNEL_RATIO) // 1))
    multiple = multiple_of(whole)
    return min(whole, -(-least // multiple) * multiple)


def multiple_of(whole: int) -> int:
    """Return the power of two, up to `LARGEST_MULTIPLE`, that is at most an eighth of a width: 64 gives 8, 20 gives 2.

    Coarser steps would leave narrow layers no choice.
    """
    eighth = min(LARGEST_MULTIPLE, max(1, whole // 8))
    return 1 << (eighth.bit_length() - 1)
