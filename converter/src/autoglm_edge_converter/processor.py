"""What this machine's processor has for 8-bit numbers, as far as the system tells.

x86 without VNNI adds pairs of products of 8-bit numbers in 16 bits, which saturate (vpmaddubsw): 255 x 127 + 255 x 127
is more than 32,767. Kernels for unsigned by unsigned widen first; signed weights can be scaled so that no pair reaches
the end (see `saturation`).
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

X86 = ("x86_64", "AMD64", "i386", "i686")
_UNITS = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "neon": ("asimd", "neon"),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
}
"""Names of the flags in /proc/cpuinfo, by what targets call it."""

_NAMES = {
    "avx2": "AVX2",
    "avx512": "AVX-512",
    "vnni": "VNNI",
    "neon": "NEON",
    "i8mm": "i8mm",
    "dotprod": "dot products",
}


def units_in(cpuinfo: str) -> tuple[str, ...]:
    """Return what the flags of a /proc/cpuinfo name: avx2, avx512, vnni, neon, dotprod, i8mm."""
    flags: set[str] = set()
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            flags.update(value.split())
    return tuple(unit for unit, names in _UNITS.items() if flags.intersection(names))


def sums_saturate(architecture: str, units: tuple[str, ...]) -> bool:
    """Tell whether sums of products of 8-bit numbers saturate in onnxruntime's kernels for signed weights."""
    return architecture in X86 and "vnni" not in units


def in_words(architecture: str, units: tuple[str, ...]) -> str:
    """Return what matters for 8-bit kernels, `AVX2, no VNNI`; empty where nothing is known."""
    there = [_NAMES[unit] for unit in units]
    absent = ["no VNNI"] if units and sums_saturate(architecture, units) else []
    return ", ".join([*there, *absent])


@cache
def own_units() -> tuple[str, ...]:
    """Return what this machine has; nothing where the system does not tell, which is the careful answer."""
    try:
        return units_in(Path("/proc/cpuinfo").read_text(errors="replace"))
    except OSError:
        return ()


def own_words() -> str:
    """Return `in_words` of this machine."""
    return in_words(platform.machine(), own_units())
