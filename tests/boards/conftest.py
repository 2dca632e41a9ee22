"""Boards that this machine emulates, and what they are asked to run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.boards import disks
from tests.boards.abilities import BOOT, why_not
from tests.boards.bootable import disk
from tests.boards.converted import Converted, convert_digits, converted
from tests.boards.disks import copy_of
from tests.boards.kernels import kernel
from tests.boards.locked_wheels import REPOSITORY, TESTS
from tests.boards.machines import QUICK, QUIET, RASPI3B, Machine
from tests.boards.processors import PI_4_32, PI_4_64
from tests.boards.qemu_user import EmulatedBoard
from tests.boards.roots import PYTHON, Recipe, root_of
from tests.boards.sites import BoardSite, board_site, kept_log
from tests.fakes.boards import write_board
from tests.fakes.shared import shared

from autoglm_edge_firmware.package.architectures import ARCHITECTURES
from autoglm_edge_firmware.package.build import build_package

OLD_ONNXRUNTIME = "opt/onnxruntime-1.21.0"

ARM64 = Recipe(
    ARCHITECTURES["arm64"],
    packages=("python3", "bash", "coreutils", "libgomp1", "libstdc++6"),
    tests=TESTS,
    unlocked=(("onnxruntime==1.21.0", OLD_ONNXRUNTIME),),
)
ARMV7 = Recipe(
    ARCHITECTURES["armhf"],
    packages=(*ARM64.packages, *ARCHITECTURES["armhf"].from_debian.values()),
    tests=tuple(name for name in TESTS if name != "hypothesis"),
    with_security=False,
)
UNCONFIGURED = {"LD_LIBRARY_PATH": "/usr/lib/arm-linux-gnueabihf/blas:/usr/lib/arm-linux-gnueabihf/lapack"}
"""What Debian's alternatives would do when numpy's packages are configured."""


@pytest.fixture(scope="session")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> EmulatedBoard:
    """A Pi 4 with a 64-bit system."""
    if reason := why_not("qemu-aarch64"):
        pytest.skip(reason)
    files = write_board(PI_4_64, tmp_path_factory.mktemp("pi-4-64"))
    return EmulatedBoard(root_of(ARM64), "cortex-a72", files)


@pytest.fixture(scope="session")
def armv7(tmp_path_factory: pytest.TempPathFactory) -> EmulatedBoard:
    """A Pi 4 with a 32-bit system."""
    if reason := why_not("qemu-arm"):
        pytest.skip(reason)
    files = write_board(PI_4_32, tmp_path_factory.mktemp("pi-4-32"))
    return EmulatedBoard(root_of(ARMV7), "cortex-a15", files, UNCONFIGURED)


@pytest.fixture(scope="session")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """A residual network in ONNX, all of it INT8 that the budget of quality allows."""
    return converted(shared(tmp_path_factory, "onnx", lambda folder: convert_digits("res.onnx", folder, ())))


@pytest.fixture(scope="session")
def tflite_bundle(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """A network in TFLite, all of it INT8, for the oldest runtimes too."""
    return converted(
        shared(tmp_path_factory, "tflite", lambda folder: convert_digits("mbn.tflite", folder, ("armv7",)))
    )


@pytest.fixture(scope="session")
def board_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with the agent's package, as it is built from this checkout."""
    if reason := why_not("qemu-aarch64", *BOOT):
        pytest.skip(reason)
    pythons = (PYTHON,)
    folder = shared(
        tmp_path_factory, "package", lambda folder: build_package("arm64", folder, checkout=REPOSITORY, pythons=pythons)
    )
    (package,) = folder.glob("*.deb")
    return disk(package)


@pytest.fixture
def site(board_disk: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BoardSite]:
    """A board with everything that Debian starts."""
    machine = Machine(kernel(), copy_of(board_disk, tmp_path / "disk.img"), kept_log(request.node.name))
    with board_site(machine, tmp_path) as made:
        yield made


@pytest.fixture
def quick_site(board_disk: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BoardSite]:
    """A board that starts what the agent needs, and is there sooner."""
    disk = copy_of(board_disk, tmp_path / "disk.img")
    machine = Machine(kernel(), disk, kept_log(request.node.name), arguments=QUICK)
    with board_site(machine, tmp_path) as made:
        yield made


@pytest.fixture
def pi_3_site(board_disk: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BoardSite]:
    """A Pi 3 with its own device tree and a card."""
    disk = copy_of(board_disk, tmp_path / "disk.img")
    disks.grow(disk, 2 << 30)  # the emulated reader takes cards of powers of two alone
    machine = Machine(kernel(), disk, kept_log(request.node.name), RASPI3B, QUIET)
    with board_site(machine, tmp_path) as made:
        yield made
