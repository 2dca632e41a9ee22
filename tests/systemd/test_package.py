"""The Debian package: what goes into it, and that the same checkout makes the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.version import Version

from autoglm_edge_firmware.errors import FirmwareError
from autoglm_edge_firmware.package.architectures import ARCHITECTURES, architecture
from autoglm_edge_firmware.package.build import build_package, build_time, own_checkout, write_installer
from autoglm_edge_firmware.package.control import python_range
from autoglm_edge_firmware.package.deb import Entry, pack
from autoglm_edge_firmware.package.layout import modules, system_files
from autoglm_edge_firmware.package.lock import needed, parse_lock
from autoglm_edge_firmware.package.wheels import contents

CHECKOUT = Path(__file__).parents[2]
with_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="this machine has no dpkg")

LOCK = """
# a comment
numpy==1.0 ; python_full_version < '3.12' and platform_machine != 'armv7l' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via somebody
numpy==2.0 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
paho-mqtt==2.2.0 \\
    --hash=sha256:dd
colorama==0.4 ; sys_platform == 'win32' \\
    --hash=sha256:ee
"""


@pytest.mark.parametrize(
    ("name", "python", "expected"),
    [
        ("amd64", "3.11", ["numpy==1.0", "paho-mqtt==2.2.0"]),
        ("arm64", "3.13", ["numpy==2.0", "paho-mqtt==2.2.0"]),
        ("armhf", "3.11", ["paho-mqtt==2.2.0"]),
        ("armhf", "3.13", ["paho-mqtt==2.2.0"]),  # numpy is Debian's there
    ],
)
def test_markers_are_asked_about_the_board(name: str, python: str, expected: list[str]) -> None:
    chosen = needed(parse_lock(LOCK), architecture(name), python)
    assert [f"{each.name}=={each.version}" for each in chosen] == expected


def test_hashes_come_along() -> None:
    first, *_ = parse_lock(LOCK)
    assert first.to_line() == "numpy==1.0 --hash=sha256:aa --hash=sha256:bb"


@pytest.mark.parametrize("text", ["numpy==1.0\n", "numpy>=1.0 --hash=sha256:aa\n", "== --hash=sha256:aa\n"])
def test_what_is_not_locked_is_refused(text: str) -> None:
    with pytest.raises(FirmwareError):
        parse_lock(text)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_lock_has_a_runtime_for_every_board(name: str) -> None:
    locked = parse_lock((CHECKOUT / "requirements/board.txt").read_text())
    for python in architecture(name).pythons:
        names = {each.name for each in needed(locked, architecture(name), python)}
        assert {"pydantic-core", "paho-mqtt", "tuf", "cryptography"} <= names
        assert names & {"onnxruntime", "tflite-runtime"}
        assert not names & {"colorama", "pyreadline3"}


@pytest.mark.parametrize(
    "pythons",
    [["3.11"], ["3.11", "3.13"], ["3.13", "3.10"], ["3.10", "3.11", "3.12", "3.13"], ["3.10", "3.12", "3.14"]],
)
def test_dependencies_hold_for_these_pythons_and_no_other(pythons: list[str]) -> None:
    def holds(clause: str, version: Version) -> bool:
        _, relation, bound = clause.strip(" )").replace("(", "").split()
        return version >= Version(bound) if relation == ">=" else version < Version(bound)

    for minor in range(8, 17):
        version = Version(f"3.{minor}.2")  # Debian's python3 has a third part
        accepted = all(any(holds(one, version) for one in group.split("|")) for group in python_range(pythons))
        assert accepted == (f"3.{minor}" in pythons), version


def _wheel(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return folder / name


def test_what_every_python_can_load_is_there_once(tmp_path: Path) -> None:
    made = {
        python: [
            _wheel(tmp_path / python, "pure-1-py3-none-any.whl", {"pure/__init__.py": b""}),
            _wheel(tmp_path / python, "stable-1-cp39-abi3-linux.whl", {"stable.so": b"s"}),
            _wheel(tmp_path / python, f"fast-1-cp{tag}-cp{tag}-linux.whl", {"fast.so": tag.encode()}),
            _wheel(tmp_path / python, f"moved-{tag}-py3-none-any.whl", {"moved.py": tag.encode()}),
        ]
        for python, tag in (("3.11", "311"), ("3.13", "313"))
    }
    found = {entry.path.removeprefix("/opt/autoglm-edge/lib/"): entry.data for entry in modules(made)}
    assert found == {
        "any/pure/__init__.py": b"",
        "any/stable.so": b"s",
        "cp311/fast.so": b"311",
        "cp313/fast.so": b"313",
        "cp311/moved.py": b"311",  # of a version that only one Python has
        "cp313/moved.py": b"313",
    }


def test_two_wheels_with_one_file_are_refused(tmp_path: Path) -> None:
    one = _wheel(tmp_path, "one-1-py3-none-any.whl", {"same.py": b"1"})
    two = _wheel(tmp_path, "two-1-py3-none-any.whl", {"same.py": b"2"})
    with pytest.raises(FirmwareError, match=r"two wheels have a file same\.py"):
        modules({"3.11": [one, two]})


def test_a_wheel_is_taken_as_pip_would_lay_it_out(tmp_path: Path) -> None:
    files = {
        "x-1.data/purelib/x/a.py": b"",
        "x-1.data/scripts/x": b"",
        "x/tests/test_a.py": b"",
        "zstandard/_cffi.so": b"",
        "x-1.dist-info/METADATA": b"",
    }
    wheel = _wheel(tmp_path, "x-1-py3-none-any.whl", files)
    assert [path for path, _ in contents(wheel)] == [PurePosixPath("x/a.py"), PurePosixPath("x-1.dist-info/METADATA")]
    with pytest.raises(FirmwareError, match="outside of itself"):
        list(contents(_wheel(tmp_path, "y-1-py3-none-any.whl", {"../../etc/passwd": b""})))


@with_dpkg
def test_dpkg_reads_what_is_packed(tmp_path: Path) -> None:
    entries = [
        Entry("/usr/bin/b", b"#!/bin/sh\n", 0o755),
        Entry("/etc/a.conf", b"x" * 100_000),
        Entry("/usr/bin/link", target="/usr/bin/b"),
    ]
    control = {
        "control": Entry(
            "/control", b"Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m <m@m>\nDescription: d\n"
        )
    }
    packed = pack(control, entries, 1_700_000_000)
    assert packed == pack(control, entries[::-1], 1_700_000_000)
    path = tmp_path / "p.deb"
    path.write_bytes(packed)
    subprocess.run(["dpkg-deb", "--raw-extract", str(path), str(tmp_path / "out")], check=True)
    assert (tmp_path / "out/usr/bin/b").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out/usr/bin/link").readlink() == Path("/usr/bin/b")
    assert (tmp_path / "out/etc/a.conf").stat().st_mtime == 1_700_000_000
    digest = hashlib.md5((tmp_path / "out/etc/a.conf").read_bytes()).hexdigest()
    assert f"{digest}  etc/a.conf\n" in (tmp_path / "out/DEBIAN/md5sums").read_text()


def test_every_place_of_the_checkout_is_found() -> None:
    paths = {entry.path for entry in system_files(own_checkout())}
    assert {
        "/usr/bin/autoglm-edge-agent",
        "/etc/autoglm-edge/agent.toml",
        "/usr/lib/systemd/system/autoglm-edge-agent.service",
        "/usr/lib/systemd/system/autoglm-edge-agent.service.d/10-limits.conf",
        "/usr/lib/sysusers.d/autoglm-edge.conf",
        "/usr/share/doc/autoglm-edge-agent/agent.md",  # what agent.toml leads to
    } <= paths


def test_the_time_is_given_or_the_last_commits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    assert build_time(CHECKOUT) == 1234567890
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(FirmwareError, match="SOURCE_DATE_EPOCH"):
        build_time(CHECKOUT)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert build_time(tmp_path) == 1_577_836_800


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"name": "riscv64"}, "there is no package for 'riscv64'"),
        ({"name": "arm64", "pythons": ["2.7"]}, "no version of Python"),
        ({"name": "arm64", "pythons": ["3.11; rm"]}, "no version of Python"),
    ],
)
def test_what_there_is_no_package_for(arguments: dict[str, object], what: str, tmp_path: Path) -> None:
    with pytest.raises(FirmwareError, match=what):
        build_package(output=tmp_path, **arguments)  # type: ignore[arg-type]


@with_dpkg
@pytest.mark.slow
def test_the_same_checkout_makes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of 32-bit ARM, the smallest: it is built where and when it may be."""
    first = build_package("armhf", tmp_path / "one")
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = os.umask(0o077)
    try:
        second = build_package("armhf", tmp_path / "two")
    finally:
        os.umask(before)
    assert first.name == second.name == "autoglm-edge-agent_0.1.0_armhf.deb"
    assert first.read_bytes() == second.read_bytes()
    told = subprocess.run(["dpkg-deb", "--field", str(first), "Depends"], capture_output=True, text=True, check=True)
    assert "python3 (<< 3.12)" in told.stdout
    assert "python3-numpy" in told.stdout
    installer = write_installer(tmp_path / "one")
    assert installer.stat().st_mode & 0o777 == 0o755
