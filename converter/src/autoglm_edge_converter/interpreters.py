"""Finding a Python of a version that a tool needs: this one, one named by a variable, on the path, or of pyenv.

What is found is run before it is believed: a pyenv shim stands on the path whether or not its version can be used,
and Debian ships Python without the module that makes virtual environments.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_ASK = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2], sys.executable, sep='\\n')"
_ANSWER_S = 30.0


def variable_of(version: str) -> str:
    """Return the name of the environment variable that names an interpreter: `AUTOGLM_EDGE_PYTHON312`."""
    return f"AUTOGLM_EDGE_PYTHON{version.replace('.', '')}"


def find_interpreter(versions: Sequence[str], variables: Mapping[str, str] = os.environ) -> tuple[str, Path] | None:
    """Return version and path of the first interpreter that can make environments; `versions` as `3.12`, best first."""
    for version in versions:
        for path in _places(version, variables):
            if _answers(path, version):
                return version, path
    return None


def _places(version: str, variables: Mapping[str, str]) -> Iterator[Path]:
    named = variables.get(variable_of(version))
    if named:
        yield Path(named)
    if sys.version_info[:2] == tuple(int(part) for part in version.split(".")):
        yield Path(sys.executable)
    on_path = shutil.which(f"python{version}", path=variables.get("PATH", os.defpath))
    if on_path:
        yield Path(on_path)
    # Newest first: 3.12.10 comes after 3.12.9.
    installed = _pyenv_root(variables).glob(f"versions/{version}.*/bin/python")
    yield from sorted(installed, key=lambda path: (len(path.parts[-3]), path.parts[-3]), reverse=True)


def _pyenv_root(variables: Mapping[str, str]) -> Path:
    return Path(variables.get("PYENV_ROOT") or Path.home() / ".pyenv")


def _answers(path: Path, version: str) -> bool:
    try:
        done = subprocess.run(
            [str(path), "-I", "-c", _ASK], capture_output=True, text=True, timeout=_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.splitlines()[:1] == [version]
