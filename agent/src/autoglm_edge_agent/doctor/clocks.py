"""How fast the cores run now and could run."""

from __future__ import annotations

import re

from autoglm_edge_agent.doctor.findings import Clock
from autoglm_edge_agent.doctor.tree import Tree


def clocks(tree: Tree) -> tuple[Clock, ...]:
    """Return the clocks, cores of the same kind that run alike together."""
    groups: dict[tuple[int | None, int], list[int]] = {}
    for folder in tree.matches("/sys/devices/system/cpu/cpu[0-9]*/cpufreq"):
        core = re.search(r"/cpu(\d+)/cpufreq$", folder)
        highest, now = tree.number(f"{folder}/cpuinfo_max_freq"), tree.number(f"{folder}/scaling_cur_freq")
        if core and highest:
            groups.setdefault((None if now is None else now // 1000, highest // 1000), []).append(int(core[1]))
    found = (Clock(cores=tuple(sorted(cores)), now_mhz=now, highest_mhz=top) for (now, top), cores in groups.items())
    return tuple(sorted(found, key=lambda clock: clock.cores))
