"""Make a virtual environment with locked requirements and some of this repository's distributions.

Uses the standard library alone, because it runs before anything is installed. Debian and Ubuntu ship Python without
the module that makes environments; as root the package is installed, else the command to run is printed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

NEWEST_PYTHON = (3, 13)
"""The newest that the tests were run with."""


def main() -> int:
    """Build the environment named by the arguments: VENV REQUIREMENTS DISTRIBUTION... [--first PACKAGE].

    What comes first is installed without a hash, so that pip takes the build that suits the machine; the locked
    requirements then say all the rest, and pip resolves nothing.
    """
    arguments, first = _arguments(sys.argv[1:])
    if len(arguments) < 3:
        print("usage: bootstrap.py VENV REQUIREMENTS DISTRIBUTION... [--first PACKAGE]", file=sys.stderr)
        return 2
    venv, requirements, distributions = Path(arguments[0]), Path(arguments[1]), arguments[2:]
    oldest = max(_oldest_python(Path(name)) for name in distributions)
    if not oldest <= sys.version_info[:2] <= NEWEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:3]))
        bounds = " to ".join(".".join(map(str, bound)) for bound in (oldest, NEWEST_PYTHON))
        print(f"Python {bounds} is needed, this is {version}: make PYTHON=python3.12 ...", file=sys.stderr)
        return 1
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not _works(python):
        if importlib.util.find_spec("ensurepip") is None and not _install_venv_module():
            return 1
        print(f"making {venv} ...", flush=True)
        if venv.exists():
            shutil.rmtree(venv)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    # Python compiles what is imported, when it is; of a framework's thousands of files most never are.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    print(f"installing {requirements} into {venv} (about a minute) ...", flush=True)
    if first and subprocess.run([*pip, first], check=False).returncode:
        print(f"could not install {first}: is the package index reachable?", file=sys.stderr)
        return 1
    alone = ["--no-deps"] if first else []
    if subprocess.run([*pip, *alone, "--require-hashes", "-r", str(requirements)], check=False).returncode:
        print(f"could not install {requirements}: is the package index reachable?", file=sys.stderr)
        return 1
    editable = [argument for name in distributions for argument in ("--editable", f"./{name}")]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", *editable], check=True)
    (venv / ".complete").touch()
    return 0


def _oldest_python(distribution: Path) -> tuple[int, int]:
    # Not tomllib: the interpreter that is to be refused may have none.
    text = (distribution / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^requires-python = ">=(\d+)\.(\d+)"$', text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{distribution}/pyproject.toml does not say which Python it needs")
    return int(found[1]), int(found[2])


def _arguments(given: list[str]) -> tuple[list[str], str | None]:
    if "--first" not in given:
        return given, None
    at = given.index("--first")
    return given[:at] + given[at + 2 :], given[at + 1] if at + 1 < len(given) else None


def _works(python: Path) -> bool:
    return (
        python.exists()
        and subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    )


def _install_venv_module() -> bool:
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing the Debian package {package} ...", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment)
        if not subprocess.run(["apt-get", "install", "-y", "-qq", package], check=False, env=environment).returncode:
            return True
    print(f"this Python cannot make virtual environments: sudo apt install {package}", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
