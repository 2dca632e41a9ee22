"""What `autoglm-edge-devices.service` runs: opens the accelerators of this board to the agent, which waits for it.

It is no command of `autoglm-edge-agent`, and needs the standard library alone: it runs at every boot, and to load a
command line and pydantic takes four times as long as all that is done here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from autoglm_edge_agent.systemd.devices import drop_ins_of, link, node_groups


def main() -> None:
    """Bring the drop-ins up to date and say which there are."""
    parser = argparse.ArgumentParser(prog="python3 -m autoglm_edge_agent.systemd.open_devices")
    parser.add_argument("folder", type=Path, help="drop-ins of the agent's unit")
    parser.add_argument("--root", type=Path, default=Path("/"), help="the board's files are below this folder")
    given = parser.parse_args()
    names = drop_ins_of(given.root)
    try:
        link(given.folder, names, node_groups(names, given.root))
    except OSError as error:
        sys.exit(f"autoglm-edge-devices: {error}")
    sys.stdout.write(f"open to the agent: {', '.join(names) or 'no accelerator'}\n")


if __name__ == "__main__":
    main()
