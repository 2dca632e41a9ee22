"""Classes of boards: what they have, which runtimes there are for them, and what follows for a conversion.

Facts are those of the makers' data sheets and of the wheels on the package index in November 2026. The choice between
signed and unsigned activations follows onnxruntime's kernels (MLAS): x86 multiplies unsigned by signed in one
instruction with VNNI, and saturates without it (see `processor`); ARM processors with dot products do both alike;
those without have a faster path for signed ones.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.processor import own_units, sums_saturate

ONNX = "onnxruntime"
LITERT, TFLITE_RUNTIME = "litert", "tflite"
RUNTIMES = {"onnx": (ONNX,), "tflite": (LITERT, TFLITE_RUNTIME)}
"""Which runtimes run a format, the maintained one first."""

OLDEST_READER = {
    13: "1.6", 14: "1.8", 15: "1.10", 16: "1.11", 17: "1.12", 18: "1.14", 19: "1.15", 20: "1.17", 21: "1.18",
    22: "1.21", 23: "1.23", 24: "1.24", 25: "1.24", 26: "1.25", 27: "1.32", 28: "1.32",
}  # fmt: skip
"""The oldest onnxruntime that reads an operator set. Source: its compatibility table; from 21 on tried in each release,
since 1.20 is said to read 22 and does not."""

NEWEST_OPSET = onnx.defs.onnx_opset_version()
"""No model here can have a newer one; the bound where no target sets another."""


@dataclass(frozen=True)
class Runtime:
    """A runtime with wheels for a board, and the oldest of its versions that is supported."""

    name: str
    oldest: str


@dataclass(frozen=True)
class Target:
    """A class of boards."""

    name: str
    about: str
    architecture: str
    """As `uname -m` says: x86_64, aarch64, armv7l."""
    cores: int
    memory_bytes: int
    """Of the smallest model on sale."""
    instructions: tuple[str, ...]
    """What 8-bit kernels can use: vnni, avx2, neon, dotprod, i8mm."""
    runtimes: tuple[Runtime, ...]
    accelerators: tuple[str, ...] = ()

    def runtime(self, name: str) -> Runtime | None:
        """Return the runtime of this name."""
        return next((runtime for runtime in self.runtimes if runtime.name == name), None)

    @property
    def signed(self) -> bool:
        """Whether signed activations are the faster ones."""
        return self.architecture == "aarch64" and "dotprod" not in self.instructions

    @property
    def saturates(self) -> bool:
        """Whether sums of products with signed 8-bit weights saturate."""
        return sums_saturate(self.architecture, self.instructions)

    @property
    def newest_opset(self) -> int:
        """The newest operator set that the oldest supported onnxruntime reads; 0 where there is none."""
        runtime = self.runtime(ONNX)
        return newest_opset(runtime.oldest) if runtime else 0


MB = 1024 * 1024
_ARM64 = (Runtime(ONNX, "1.17"), Runtime("litert", "1.0"), Runtime("tflite", "2.14"))

TARGETS = {
    target.name: target
    for target in (
        Target("rpi3", "Raspberry Pi 3, Cortex-A53", "aarch64", 4, 1024 * MB, ("neon",), _ARM64),
        Target("rpi-zero2w", "Raspberry Pi Zero 2 W, Cortex-A53", "aarch64", 4, 512 * MB, ("neon",), _ARM64),
        Target("rpi4", "Raspberry Pi 4, Cortex-A72", "aarch64", 4, 1024 * MB, ("neon",), _ARM64),
        Target("rpi5", "Raspberry Pi 5, Cortex-A76", "aarch64", 4, 2048 * MB, ("neon", "dotprod"), _ARM64, ("hailo",)),
        Target(
            "jetson-orin-nano",
            "NVIDIA Jetson Orin Nano, Cortex-A78AE",
            "aarch64",
            6,
            4096 * MB,
            ("neon", "dotprod"),
            (Runtime(ONNX, "1.17"), Runtime("litert", "1.0")),
            ("cuda", "tensorrt"),
        ),
        Target("generic-arm64", "any 64-bit ARM board", "aarch64", 4, 1024 * MB, ("neon",), _ARM64),
        Target(
            "x86-64",
            "any PC or industrial box, also those without VNNI",
            "x86_64",
            2,
            2048 * MB,
            ("avx2",),
            (Runtime(ONNX, "1.17"), Runtime("litert", "1.0")),
        ),
        Target(
            "x86-64-vnni",
            "PCs and boxes with VNNI (Intel since Ice Lake, AMD since Zen 4)",
            "x86_64",
            2,
            2048 * MB,
            ("avx2", "vnni"),
            (Runtime(ONNX, "1.17"), Runtime("litert", "1.0")),
        ),
        Target("armv7", "32-bit ARM boards", "armv7l", 4, 512 * MB, ("neon",), (Runtime("tflite", "2.14"),)),
    )
}


@dataclass(frozen=True)
class Demands:
    """What a file has to keep so that every target of a conversion can run it."""

    targets: tuple[str, ...]
    newest_opset: int
    signed: bool
    memory_bytes: int | None
    """Of the target with the least; None where no target was named."""
    saturates: bool = False
    """Sums of products with signed 8-bit weights saturate on one of the targets."""
    oldest: tuple[tuple[str, Runtime], ...] = ()
    """By format: the oldest runtimes that have to load a file of it; none where no target was named."""

    def oldest_for(self, form: str) -> tuple[Runtime, ...]:
        """Return the oldest runtimes that have to load a file of a format."""
        return tuple(runtime for name, runtime in self.oldest if name == form)


def demands_of(names: Sequence[str], formats: Sequence[str] = ("onnx",)) -> Demands:
    """Return what all targets together demand; without any, the signs that suit this machine.

    A target must have a runtime for one of the formats. Raises BadOption.
    """
    chosen = [find_target(name) for name in names] or [own_kind()]
    for target in chosen:
        if not any(_runtimes_for(target, form) for form in formats):
            raise BadOption(
                f"--target {target.name}: {_NAMES[formats[0]]} has no wheel for {target.architecture}: "
                f"{_remedy(target, formats)}"
            )
    opsets = [target.newest_opset for target in chosen if target.runtime(ONNX) is not None]
    return Demands(
        targets=tuple(names),
        newest_opset=min(opsets) if names and opsets else NEWEST_OPSET,
        oldest=tuple(_oldest(chosen, formats)) if names else (),
        # Where some want signed and others unsigned ones: x86 loses most by the wrong choice.
        signed=all(target.signed for target in chosen),
        saturates=any(target.saturates for target in chosen),
        memory_bytes=min(target.memory_bytes for target in chosen) if names else None,
    )


_NAMES = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}


def _remedy(target: Target, formats: Sequence[str]) -> str:
    others = [form for form in RUNTIMES if form not in formats and _runtimes_for(target, form)]
    return f"add --format {others[0]}" if others else "choose another target"


def _runtimes_for(target: Target, form: str) -> tuple[Runtime, ...]:
    """Return the runtimes of a target that run a format: a device may have any one of them installed."""
    return tuple(found for name in RUNTIMES[form] if (found := target.runtime(name)) is not None)


def _oldest(targets: Sequence[Target], formats: Sequence[str]) -> list[tuple[str, Runtime]]:
    found = {(form, runtime) for form in formats for target in targets for runtime in _runtimes_for(target, form)}
    return sorted(found, key=lambda entry: (entry[0], entry[1].name, _numbers(entry[1].oldest)))


def find_target(name: str) -> Target:
    """Return the target of this name. Raises BadOption."""
    if name not in TARGETS:
        raise BadOption(f"--target {name!r} is not known: choose among {', '.join(TARGETS)}")
    return TARGETS[name]


def own_kind() -> Target:
    """Return what this machine is, where candidates are timed."""
    if platform.machine() in ("aarch64", "arm64"):
        return TARGETS["generic-arm64"]
    return replace(TARGETS["x86-64"], instructions=own_units())


def own_signed() -> bool:
    """Whether signed activations are the faster ones here."""
    return own_kind().signed


def newest_opset(version: str) -> int:
    """Return the newest operator set that an onnxruntime of this version reads."""
    return max((opset for opset, oldest in OLDEST_READER.items() if _numbers(oldest) <= _numbers(version)), default=0)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
