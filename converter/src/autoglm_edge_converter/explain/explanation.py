"""What is told of one variant, as plain values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

KEPT, FUSED, REPLACED, FOLDED, GONE, ADDED = "kept", "fused", "replaced", "folded", "gone", "added"
EIGHT_BITS, FLOAT, SMALL_WEIGHTS = "8 bits", "float", "small weights"
"""`kept` is as it was; `float` could have been on 8 bits and is not; `small weights` are stored on fewer bits and
computed with in float."""

BY_NAME = "each operator was followed by name"
BY_COUNT = "counts per type only: names are lost on the way"


@dataclass(frozen=True)
class Fate:
    """What became of one operator."""

    operator: str
    name: str
    became: str
    into: str = ""
    """The operator that does its work now, where that is another."""
    why: str = ""
    """The rewrite that did it, or the reason to leave it as it is."""


@dataclass(frozen=True)
class Need:
    """An operator in a variant's file, and the oldest release of each runtime that reads its version."""

    operator: str
    version: int
    count: int
    readers: tuple[tuple[str, str | None], ...]
    """By runtime; None: no release that is known."""


@dataclass(frozen=True)
class Explanation:
    """One variant. `fates` are of the operators of `source`."""

    variant: str
    source: str
    how: str
    """`BY_NAME` or `BY_COUNT`."""
    fates: tuple[Fate, ...]
    before: tuple[tuple[str, int], ...]
    """Operators of `source` per type."""
    after: tuple[tuple[str, int], ...]
    """Operators of the variant's file per type."""
    needs: tuple[Need, ...]
    file_needs: str = ""
    """Which runtimes read the file as a whole."""
    road: str = ""
    """How `source` came from the user's model, with the operators of that per type where they can be read."""


@dataclass(frozen=True)
class Group:
    """Operators of one type with one fate. `names` are of its first members."""

    operator: str
    became: str
    into: str
    why: str
    count: int
    names: tuple[str, ...]


def grouped(fates: Iterable[Fate], most_names: int = 3) -> tuple[Group, ...]:
    """Put equal fates together, in the order in which they first come."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for fate in fates:
        found.setdefault((fate.operator, fate.became, fate.into, fate.why), []).append(fate.name)
    return tuple(Group(*key, len(names), tuple(names[:most_names])) for key, names in found.items())
