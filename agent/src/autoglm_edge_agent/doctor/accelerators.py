"""Which devices that calculate are on the board: by PCI and USB numbers, by the nodes and loads of their drivers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autoglm_edge_agent.doctor.tree import Tree


@dataclass(frozen=True)
class Accelerator:
    """A device that calculates, as the board's own files tell of it."""

    name: str
    where: str
    ready: bool
    """Whether its driver is there."""
    lacks: str = ""
    used_by: tuple[str, ...] = ()
    """Runtimes with providers that use it: `litert/edgetpu`."""
    load_percent: float | None = None


@dataclass(frozen=True)
class _Kind:
    name: str
    ids: frozenset[tuple[int, int]]
    node: str | None
    """What its driver makes; None: it needs none."""
    lacks: str
    used_by: tuple[str, ...]


_EDGE_TPU = ("litert/edgetpu", "tflite/edgetpu")
_PCI = (
    _Kind(
        "Coral Edge TPU (PCIe)",
        frozenset({(0x1AC1, 0x089A)}),
        "/dev/apex_*",
        "the kernel module gasket-apex",
        _EDGE_TPU,
    ),
    _Kind("Hailo-8", frozenset({(0x1E60, 0x2864)}), "/dev/hailo*", "the kernel module hailo_pci", ()),
)
_USB = (_Kind("Coral Edge TPU (USB)", frozenset({(0x1A6E, 0x089A), (0x18D1, 0x9302)}), None, "", _EDGE_TPU),)
"""The USB stick has the first number until its firmware is loaded, then the second."""
_JETSON_GPUS = {"gv11b": "Xavier", "gp10b": "TX2", "ga10b": "Orin", "gb10b": "Thor"}
_CUDA = ("onnxruntime/tensorrt", "onnxruntime/cuda")
_DISPLAY = 0x03
_NVIDIA = 0x10DE
_GPUS = {0x8086: ("Intel GPU", ("onnxruntime/openvino",)), 0x1002: ("AMD GPU", ())}


def accelerators(tree: Tree, system: str, machine: str) -> tuple[Accelerator, ...]:
    """Return what is there, with and without a driver."""
    found = [*_pci(tree), *_usb(tree), *_jetson(tree)]
    if system == "Darwin" and machine == "arm64":
        apple = Accelerator(name="Apple Neural Engine", where="chip", ready=True, used_by=("onnxruntime/coreml",))
        found.append(apple)
    return tuple(found)


def _pci(tree: Tree) -> Iterator[Accelerator]:
    for folder in tree.matches("/sys/bus/pci/devices/*"):
        vendor, device = tree.number(f"{folder}/vendor"), tree.number(f"{folder}/device")
        if vendor is None or device is None:
            continue
        where = f"PCI {folder.rpartition('/')[2]}"
        for kind in _PCI:
            if (vendor, device) in kind.ids:
                yield _of_kind(tree, kind, where)
        if (tree.number(f"{folder}/class") or 0) >> 16 == _DISPLAY:
            yield from _gpu(tree, vendor, where)


def _gpu(tree: Tree, vendor: int, where: str) -> Iterator[Accelerator]:
    if vendor == _NVIDIA:
        ready = tree.exists("/dev/nvidia0")
        lacks = "" if ready else "NVIDIA's driver"
        yield Accelerator(name="NVIDIA GPU", where=where, ready=ready, lacks=lacks, used_by=_CUDA)
    elif vendor in _GPUS:
        name, used_by = _GPUS[vendor]
        ready = any(tree.matches("/dev/dri/renderD*"))
        yield Accelerator(name=name, where=where, ready=ready, lacks="" if ready else "its driver", used_by=used_by)


def _usb(tree: Tree) -> Iterator[Accelerator]:
    for folder in tree.matches("/sys/bus/usb/devices/*"):
        numbers = [tree.text(f"{folder}/{name}") for name in ("idVendor", "idProduct")]
        for kind in _USB:
            if any(numbers == [f"{vendor:04x}", f"{product:04x}"] for vendor, product in kind.ids):
                yield _of_kind(tree, kind, f"USB {folder.rpartition('/')[2]}")


def _of_kind(tree: Tree, kind: _Kind, where: str) -> Accelerator:
    ready = kind.node is None or any(tree.matches(kind.node))
    return Accelerator(
        name=kind.name, where=where, ready=ready, lacks="" if ready else kind.lacks, used_by=kind.used_by
    )


def _jetson(tree: Tree) -> Iterator[Accelerator]:
    for folder in tree.matches("/sys/class/devfreq/*"):
        for chip, family in _JETSON_GPUS.items():
            if chip in folder or chip in (tree.text(f"{folder}/device/of_node/compatible") or ""):
                load = tree.number(f"{folder}/device/load")  # in thousandths
                percent = None if load is None else load / 10
                name = f"Jetson {family} GPU ({chip})"
                yield Accelerator(name=name, where=folder, ready=True, used_by=_CUDA, load_percent=percent)
