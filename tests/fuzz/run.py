"""Fuzz the parsers with atheris, one after another, as long as one likes: `python -m tests.fuzz.run [SECONDS] [NAME]`.

Coverage leads it to inputs that random bytes do not reach. Not part of the tests: it needs `pip install atheris`, which
has no wheel for every system.
"""

from __future__ import annotations

import subprocess
import sys


def main() -> int:
    """Run each target in a process of its own, because atheris ends the process that it runs in."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    try:
        import atheris
    except ModuleNotFoundError:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 1
    with atheris.instrument_imports(include=["autoglm_edge_protocol", "autoglm_edge_agent", "autoglm_edge_fleet"]):
        from tests.fuzz.targets import TARGETS, try_target
    if len(sys.argv) > 2:
        target = TARGETS[sys.argv[2]]
        atheris.Setup([sys.argv[0], f"-max_total_time={seconds}"], lambda data: try_target(target, data))
        atheris.Fuzz()
    for name in TARGETS:
        print(f"--- {name}", flush=True)
        ended = subprocess.run([sys.executable, "-m", "tests.fuzz.run", seconds, name], check=False)
        if ended.returncode != 0:
            return ended.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
