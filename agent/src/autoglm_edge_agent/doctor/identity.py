"""What board this is: the device tree of ARM boards, DMI of PCs."""

from __future__ import annotations

import re

from autoglm_edge_agent.doctor.tree import Tree


def board_name(tree: Tree) -> str | None:
    """Return the board's name as its maker wrote it."""
    if model := tree.text("/proc/device-tree/model"):
        return model
    maker, product = tree.text("/sys/class/dmi/id/sys_vendor"), tree.text("/sys/class/dmi/id/product_name")
    return " ".join(part for part in (maker, product) if part) or None


def compatible(tree: Tree) -> tuple[str, ...]:
    """Return the names of the board and its chip by which drivers know them; on a Jetson its release too."""
    names = (tree.text("/proc/device-tree/compatible") or "").split()
    release = re.match(r"# (R\d+) \(release\), REVISION: ([\d.]+)", tree.text("/etc/nv_tegra_release") or "")
    if release:
        names.append(f"l4t-{release[1].lower()}.{release[2]}")
    if boardids := tree.text("/proc/device-tree/nvidia,boardids"):
        names.append(f"nvidia,boardids={boardids}")
    return tuple(names)


def processor(tree: Tree) -> str:
    """Return the processor's name; ARM kernels mostly give none."""
    found = re.search(r"^model name\s*:\s*(.+)$", tree.text("/proc/cpuinfo") or "", re.MULTILINE)
    return found[1].strip() if found else ""


def memory(tree: Tree) -> tuple[int, int] | None:
    """Return the memory that there is and that is available, in bytes."""
    text = tree.text("/proc/meminfo") or ""
    total, available = (re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE) for name in ("MemTotal", "MemAvailable"))
    return (int(total[1]) * 1024, int(available[1]) * 1024) if total and available else None
