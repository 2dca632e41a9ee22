"""Fuzz the parsers with atheris, one after another, as long as one likes: `python -m tests.fuzz.run [SECONDS] [NAME]`.

It begins with the valid inputs of each target, and coverage leads it to inputs that random bytes do not reach. Not part
of the tests: it needs `pip install atheris`, which has no wheel for every system.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PARSERS = ["autoglm_edge_protocol", "autoglm_edge_agent", "autoglm_edge_fleet", "tuf"]


def main(arguments: list[str]) -> int:
    """Run each target in a process of its own, because atheris ends the process that it runs in."""
    if len(arguments) == 3:
        return _fuzz(*arguments)
    from tests.fuzz.targets import TARGETS

    seconds = arguments[0] if arguments else "60"
    for target in [TARGETS[name] for name in arguments[1:]] or TARGETS.values():
        print(f"--- {target.name}", flush=True)
        with tempfile.TemporaryDirectory() as corpus:
            for number, seed in enumerate(target.seeds):
                (Path(corpus) / str(number)).write_bytes(seed)
            command = [sys.executable, "-m", "tests.fuzz.run", seconds, target.name, corpus]
            if status := subprocess.run(command, check=False).returncode:
                return status
    return 0


def _fuzz(seconds: str, name: str, corpus: str) -> int:
    try:
        import atheris
    except ModuleNotFoundError:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 1
    with atheris.instrument_imports(include=PARSERS):
        from tests.fuzz.targets import TARGETS, try_target
    target = TARGETS[name]
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", corpus], lambda data: try_target(target, data))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
