"""Boards that this machine emulates, and what they are asked to run."""

from __future__ import annotations

import pytest
from tests.boards.abilities import why_not
from tests.boards.locked_wheels import locked
from tests.boards.processors import PI_4_32, PI_4_64
from tests.boards.qemu_user import EmulatedBoard
from tests.boards.roots import Recipe, root_of
from tests.fakes.boards import write_board

OLD_ONNXRUNTIME = "opt/onnxruntime-1.21.0"

ARM64 = Recipe(
    architecture="arm64",
    machine="aarch64",
    packages=("python3", "bash", "coreutils", "libgomp1", "libstdc++6"),
    requirements=locked("agent.txt")
    + locked("workstation.txt", ("ai-edge-litert", "backports-strenum", "ml-dtypes", "tqdm")),
    unlocked=(("onnxruntime==1.21.0", OLD_ONNXRUNTIME),),
)

_PURE = (
    "annotated-doc",
    "annotated-types",
    "markdown-it-py",
    "mdurl",
    "paho-mqtt",
    "pydantic",
    "pydantic-core",
    "pygments",
)
_TESTS = ("iniconfig", "packaging", "pluggy", "pytest", "pytest-asyncio", "pytest-timeout")
ARMV7 = Recipe(
    architecture="armhf",
    machine="armv7l",
    packages=(
        "python3",
        "python3-numpy",
        "python3-psutil",
        "python3-httptools",
        "bash",
        "coreutils",
        "libgomp1",
        "libstdc++6",
    ),
    requirements=locked(
        "agent.txt", (*_PURE, *_TESTS, "rich", "shellingham", "typer", "typing-extensions", "typing-inspection")
    ),
    unlocked=(("tflite-runtime==2.14.0", "usr/local/lib/python3.11/dist-packages"),),
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
