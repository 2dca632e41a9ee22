"""Custom operators: shared libraries that teach a runtime nodes which it does not know.

The libraries in use are named in the environment, because every process in which a model runs needs them: this one,
the laboratory's workers, and theirs. A library is machine code of one architecture, which its ELF header tells; those
of other architectures are only carried in the bundle.
"""

from __future__ import annotations

import json
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

LITERT_VARIABLE = "AUTOGLM_EDGE_LITERT_OPS"
"""Libraries for LiteRT, a JSON list of pairs of path and function."""

_MACHINES = {62: "x86_64", 183: "aarch64", 40: "armv7l", 243: "riscv64", 3: "i686"}
"""`e_machine` of the ELF header, as `platform.machine()` calls it. Source: the ELF specification, gABI 4.1."""

_UNKNOWN = re.compile(r"([\w.\-]*):(\w+)\(-?\d+\) is not a registered function/op")
_UNRESOLVED = re.compile(r"unresolved custom op: ([\w.\-:/]+?)\.?(?:\s|$)")
_LOADING_S = 60.0


class _SessionOptions(Protocol):
    def register_custom_ops_library(self, path: str) -> None:
        """Load a library for the session."""


@dataclass(frozen=True)
class Registerer:
    """A library for LiteRT and the function in it that adds its operators to a resolver.

    The function is a symbol that takes a pointer to a MutableOpResolver or, where the library is a Python extension,
    one of its functions, which takes that pointer as a number. Source: `InterpreterWithCustomOps` of ai_edge_litert.
    """

    library: Path
    function: str


@dataclass(frozen=True)
class CustomOperators:
    """The registry: libraries of custom operators by runtime. Several of one runtime may be of several machines."""

    onnxruntime: tuple[Path, ...] = ()
    litert: tuple[Registerer, ...] = ()

    def litert_here(self) -> tuple[Registerer, ...]:
        """Return the libraries for LiteRT that this machine can load. Raises BadOption."""
        own = platform.machine()
        return tuple(
            Registerer(entry.library.resolve(), entry.function)
            for entry in self.litert
            if machine_of(entry.library) == own
        )

    def litert_by_machine(self) -> dict[str, tuple[Path, ...]]:
        """Return the libraries for LiteRT by machine, sorted. Raises BadOption."""
        paths = [entry.library for entry in self.litert]
        machines = sorted({machine_of(path) for path in paths})
        return {name: tuple(path for path in paths if machine_of(path) == name) for name in machines}

    def here(self) -> tuple[Path, ...]:
        """Return the libraries for ONNX Runtime that this machine can load. Raises BadOption."""
        return tuple(path.resolve() for path in self.onnxruntime if machine_of(path) == platform.machine())

    def by_machine(self) -> dict[str, tuple[Path, ...]]:
        """Return the libraries for ONNX Runtime by machine, sorted. Raises BadOption."""
        machines = sorted({machine_of(path) for path in self.onnxruntime})
        return {name: tuple(path for path in self.onnxruntime if machine_of(path) == name) for name in machines}


def custom_operators(given: Sequence[str]) -> CustomOperators:
    """Read `LIBRARY.so`, for ONNX Runtime, and `LIBRARY.so:FUNCTION`, for LiteRT."""
    plain: list[Path] = []
    named: list[Registerer] = []
    for text in given:
        path, separator, function = text.rpartition(":")
        if separator and function.isidentifier():
            named.append(Registerer(Path(path), function))
        else:
            plain.append(Path(text))
    return CustomOperators(tuple(plain), tuple(named))


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
    libraries, registerers = operators.here(), operators.litert_here()
    for library in libraries:
        _try_loading(library, "onnxruntime", _LOAD_ONNX, str(library))
    for entry in registerers:
        _try_loading(entry.library, "LiteRT", _LOAD_LITERT, str(entry.library), entry.function)
    everywhere = (operators.by_machine(), operators.litert_by_machine())
    names = [bundle_path(machine, path) for known in everywhere for machine, paths in known.items() for path in paths]
    if len(set(names)) < len(names):
        raise BadOption("--ops: two libraries for one machine have the same file name: rename one")
    pairs = [(str(entry.library), entry.function) for entry in registerers]
    wanted = {VARIABLE: os.pathsep.join(str(path) for path in libraries), LITERT_VARIABLE: json.dumps(pairs)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_LOAD_ONNX = "import sys, onnxruntime; onnxruntime.SessionOptions().register_custom_ops_library(sys.argv[1])"
_LOAD_LITERT = "import sys; from autoglm_edge_converter.tflite.interpreters import load; load(sys.argv[1], sys.argv[2])"


def _try_loading(library: Path, runtime: str, program: str, *arguments: str) -> None:
    """In a process of its own: foreign machine code may end the one that loads it."""
    command = [sys.executable, "-c", program, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LOADING_S, check=False)
    except subprocess.TimeoutExpired:
        raise BadOption(f"--ops {library} does not finish loading within {_LOADING_S:.0f} s") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1][:300]
        raise BadOption(f"--ops {library} cannot be loaded by {runtime}: {reason}")


def registerers_in_use() -> tuple[tuple[str, str], ...]:
    """Return the libraries for LiteRT in use, each with its function."""
    return tuple((path, function) for path, function in json.loads(os.environ.get(LITERT_VARIABLE) or "[]"))


def libraries_in_use() -> tuple[str, ...]:
    """Return the paths of all libraries in use."""
    return (*_for_onnx(), *(path for path, _ in registerers_in_use()))


def _for_onnx() -> tuple[str, ...]:
    return tuple(path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path)


def register(options: _SessionOptions) -> None:
    """Give a session's options the libraries in use. Errors of the runtime pass through."""
    for path in _for_onnx():
        options.register_custom_ops_library(path)


def unresolved_operator(message: str) -> str | None:
    """Read a refusal of LiteRT: return the custom operator that it has no library for, if it is about one."""
    found = _UNRESOLVED.search(message)
    return found.group(1) if found else None


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
