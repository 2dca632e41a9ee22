"""Custom operators: shared libraries that teach a runtime nodes which it does not know.

The libraries in use are named in the environment, because every process in which a model runs needs them: this one,
the laboratory's workers, and theirs. A library is machine code of one architecture, which its ELF header tells; those
of other architectures are only carried in the bundle.
"""

from __future__ import annotations

import os
import platform
import re
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx

from autoglm_edge_converter.errors import BadOption

VARIABLE = "AUTOGLM_EDGE_OPS"
"""Paths for ONNX Runtime, with the system's separator between them."""

_MACHINES = {62: "x86_64", 183: "aarch64", 40: "armv7l", 243: "riscv64", 3: "i686"}
"""`e_machine` of the ELF header, as `platform.machine()` calls it. Source: the ELF specification, gABI 4.1."""

_UNKNOWN = re.compile(r"([\w.\-]*):(\w+)\(-?\d+\) is not a registered function/op")
_LOADING_S = 60.0


class _SessionOptions(Protocol):
    def register_custom_ops_library(self, path: str) -> None:
        """Load a library for the session."""


@dataclass(frozen=True)
class CustomOperators:
    """The registry: libraries of custom operators by runtime. Several of one runtime may be of several machines."""

    onnxruntime: tuple[Path, ...] = ()

    def here(self) -> tuple[Path, ...]:
        """Return the libraries for ONNX Runtime that this machine can load. Raises BadOption."""
        return tuple(path.resolve() for path in self.onnxruntime if machine_of(path) == platform.machine())

    def by_machine(self) -> dict[str, tuple[Path, ...]]:
        """Return the libraries for ONNX Runtime by machine, sorted. Raises BadOption."""
        machines = sorted({machine_of(path) for path in self.onnxruntime})
        return {name: tuple(path for path in self.onnxruntime if machine_of(path) == name) for name in machines}


def bundle_path(machine: str, library: Path) -> str:
    """Return where a library lies in a bundle."""
    return f"ops/{machine}/{library.name}"


def machine_of(library: Path) -> str:
    """Return the machine that a shared library is made for, `x86_64`. Raises BadOption."""
    try:
        with library.open("rb") as file:
            header = file.read(20)
    except OSError as error:
        raise BadOption(f"--ops {library} cannot be read ({error.strerror}): give a shared library") from None
    if len(header) < 20 or header[:4] != b"\x7fELF":
        raise BadOption(f"--ops {library} is no ELF shared library: build one for Linux, as the devices run it")
    number = struct.unpack_from("<H" if header[5] == 1 else ">H", header, 18)[0]
    if number not in _MACHINES:
        raise BadOption(f"--ops {library} is for machine {number}, known are: {', '.join(_MACHINES.values())}")
    return _MACHINES[number]


@contextmanager
def in_use(operators: CustomOperators) -> Iterator[None]:
    """Let every session made in the block, here and in child processes, have these operators. Raises BadOption."""
    libraries = operators.here()
    for library in libraries:
        _try_loading(library)
    names = [bundle_path(machine, path) for machine, paths in operators.by_machine().items() for path in paths]
    if len(set(names)) < len(names):
        raise BadOption("--ops: two libraries for one machine have the same file name: rename one")
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = os.pathsep.join(str(path) for path in libraries)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _try_loading(library: Path) -> None:
    """In a process of its own: foreign machine code may end the one that loads it."""
    program = "import sys, onnxruntime; onnxruntime.SessionOptions().register_custom_ops_library(sys.argv[1])"
    command = [sys.executable, "-c", program, str(library)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LOADING_S, check=False)
    except subprocess.TimeoutExpired:
        raise BadOption(f"--ops {library} does not finish loading within {_LOADING_S:.0f} s") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1][:300]
        raise BadOption(f"--ops {library} cannot be loaded by onnxruntime: {reason}")


def libraries_in_use() -> tuple[str, ...]:
    """Return the paths of the libraries in use."""
    return tuple(path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path)


def register(options: _SessionOptions) -> None:
    """Give a session's options the libraries in use. Errors of the runtime pass through."""
    for path in libraries_in_use():
        options.register_custom_ops_library(path)


def unknown_operator(message: str, nodes: Sequence[onnx.NodeProto]) -> tuple[str, str] | None:
    """Read a refusal of ONNX Runtime: return the operator `DOMAIN:TYPE` and the node's name, if it is about one."""
    found = _UNKNOWN.search(message)
    if found is None:
        return None
    domain, kind = found.groups()
    for node in nodes:
        if node.op_type == kind and node.domain == domain:
            return f"{domain or 'ai.onnx'}:{kind}", node.name or (node.output[0] if node.output else "")
    return f"{domain or 'ai.onnx'}:{kind}", ""
