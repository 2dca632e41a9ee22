"""Which of two versions of a bundle is the newer: the order in which a device refuses to go back.

Semantic Versioning 2.0.0, section 11, with two additions, as versions here are freer: numbers may be missing at the end
(`1.2` is `1.2.0`), and what follows a `+` counts too, so that `1.2.0+3` is newer than `1.2.0+2` and than `1.2.0`.
"""

from __future__ import annotations

import re

Key = tuple[tuple[tuple[int, int, str], ...], bool, tuple[tuple[int, int, str], ...], tuple[tuple[int, int, str], ...]]


def version_key(version: str) -> Key:
    """Return what the version sorts by: greater is newer."""
    main, _, build = version.partition("+")
    core, dash, before = main.partition("-")
    return _identifiers(core, strip_zeros=True), not dash, _identifiers(before), _identifiers(build)


def is_downgrade(version: str, floor: str) -> bool:
    """Tell whether a version is older than the floor."""
    return version_key(version) < version_key(floor)


def _identifiers(text: str, strip_zeros: bool = False) -> tuple[tuple[int, int, str], ...]:
    # Numbers come before words (11.4.3); that fewer come before more (11.4.4) tuples see to by themselves.
    parts = [part for part in re.split(r"[.+-]", text) if part]
    keys = [(0, int(part), "") if re.fullmatch(r"[0-9]+", part) else (1, 0, part) for part in parts]
    while strip_zeros and keys and keys[-1] == (0, 0, ""):
        keys.pop()
    return tuple(keys)
