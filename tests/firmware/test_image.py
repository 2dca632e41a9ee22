"""Making an image: what is planned, and what is in it. The root of the fast tests is made here, of a few files."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from tests.firmware import images, packages

from autoglm_edge_firmware.customise.payload import Payload, read_package
from autoglm_edge_firmware.doctor import examine
from autoglm_edge_firmware.errors import FirmwareError, ProgramFailed, SettingRefused
from autoglm_edge_firmware.image import ImagePlan, apt_sources, build_image, files, layout
from autoglm_edge_firmware.image.boards import BOARDS, Board, Firmware, board
from autoglm_edge_firmware.image.build import finish
from autoglm_edge_firmware.image.root import must_be_possible
from autoglm_edge_firmware.media import block_map, partitions
from autoglm_edge_firmware.media.opened import open_medium
from autoglm_edge_firmware.programs import PACKAGES
from autoglm_edge_firmware.settings.claim import read_claim
from autoglm_edge_firmware.settings.wifi import derive
from autoglm_edge_firmware.write import disks
from autoglm_edge_firmware.write.cards import write_card
from autoglm_edge_firmware.write.copying import open_source

EPOCH = 1_760_000_000
PASSPHRASE = "correct horse battery"
NATIVE = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexampleexampleexampleexample ann"
SMALL = Board(
    "small", "for tests", NATIVE, Firmware.EFI, ("systemd-boot-efi",), ("main",), ("ext4",), efi_name="BOOT.EFI"
)
"""Without a kernel, which is most of an image and of the time that one takes."""


def plan(tmp_path: Path, output: Path, **more: object) -> ImagePlan:
    package = read_package(packages.deb(tmp_path / "package", NATIVE))
    payload = Payload(package, None, derive("Werkstatt", PASSPHRASE, "DE"), "plant-a")
    given: dict[str, object] = {"boot_mib": 40, "root_mib": 24, "data_mib": 8, "ssh_key": KEY, **more}
    return ImagePlan(SMALL, output, payload, EPOCH, **given)  # type: ignore[arg-type]


def made_root(folder: Path, names: list[str]) -> Path:
    """Make what mmdebstrap would leave, in the order of `names` and at this moment."""
    status = images.STATUS.format(NATIVE).replace("\nVersion", "\nStatus: install ok installed\nVersion")
    installed = f"Package: autoglm-edge-agent\nStatus: install ok installed\nArchitecture: {NATIVE}\nVersion: 0.1.0\n\n"
    texts = {
        "usr/lib/os-release": images.RASPBERRY_PI_OS,
        "etc/os-release": "-> ../usr/lib/os-release",
        "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
        "etc/resolv.conf": "nameserver 192.0.2.1\n",
        "etc/apt/sources.list.d/0000apt.sources": "URIs: http://mirror.of.this.machine/\n",
        "etc/ssh/ssh_host_ed25519_key": "-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "var/log/dpkg.log": f"{time.time()}\n",
        "var/lib/dpkg/status": status + installed,
        "var/lib/autoglm-edge/keep": "state\n",
        "usr/lib/systemd/systemd": "the first process\n",
        "usr/lib/systemd/boot/efi/systemd-bootx64.efi": "MZ the boot loader",
        "boot/firmware/vmlinuz": "a kernel " * 5000,
        "boot/firmware/overlays/x.dtbo": "overlay",
        "opt/autoglm-edge/lib/any/numpy-2.0.dist-info/METADATA": "Name: NumPy\nVersion: 2.0\n",
        "home/zeta": "z",
        "home/alpha": "a",
    }
    for name in names + [name for name in texts if name not in names]:
        images.fill(folder, {name: texts[name]})
    os.chmod(folder / "var/lib/autoglm-edge", 0o750)
    for old in folder.rglob("*"):
        os.utime(old, (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("image")
    return make(tmp_path, "card.img", [])


def make(tmp_path: Path, name: str, order: list[str], **more: object) -> Path:
    work = tmp_path / f"work-{name}"
    (work / "root").mkdir(parents=True)
    (tmp_path / "package").mkdir(exist_ok=True)
    wanted = plan(work, tmp_path / name, **more)
    return finish(wanted, made_root(work / "root", order), work)


class TestPlan:
    def test_nothing_secret_is_printed(self, tmp_path: Path) -> None:
        wanted = plan(tmp_path, tmp_path / "card.img")
        claimed = replace(
            wanted, payload=replace(wanted.payload, claim=read_claim(packages.claim(tmp_path / "claim.json")))
        )
        told = "\n".join(claimed.lines()) + repr(claimed)
        assert "Werkstatt" in told
        for secret in (PASSPHRASE, str(wanted.payload.wifi and wanted.payload.wifi.key), packages.SECRET):
            assert secret not in told

    def test_a_package_for_another_board(self, tmp_path: Path) -> None:
        package = read_package(packages.deb(tmp_path, "armhf"))
        with pytest.raises(SettingRefused, match="the package is for armhf"):
            ImagePlan(board("rpi4"), tmp_path / "card.img", Payload(package), EPOCH)

    def test_a_private_key_is_no_public_one(self, tmp_path: Path) -> None:
        with pytest.raises(SettingRefused, match="private key"):
            plan(tmp_path, tmp_path / "card.img", ssh_key="-----BEGIN OPENSSH PRIVATE KEY-----")

    def test_no_board_of_that_name(self) -> None:
        with pytest.raises(SettingRefused, match="rpi4, rpi3, generic-arm64"):
            board("rpi5")

    @pytest.mark.parametrize("name", BOARDS)
    def test_partitions_lie_apart_and_on_the_blocks_of_cards(self, name: str) -> None:
        planned = layout.layout(name, 256, 1024, 64)
        table = partitions.parse(partitions.write(planned.table).ljust(partitions.TABLE_BYTES, b"\0"))
        assert table == planned.table
        assert all(part.start_bytes % (4 << 20) == 0 for part in table.partitions)
        assert planned.identifiers == layout.identifiers(name)
        assert planned.identifiers.partition(2) in files.fstab(planned.identifiers)

    def test_a_root_has_room_for_years(self) -> None:
        assert [layout.root_mib(mib << 20) for mib in (0, 300, 1000)] == [512, 1024, 2048]


class TestAptSources:
    DEB822 = (
        "Types: deb\n# note\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates bookworm-backports\n"
        "Components: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://other/\nSuites: nodistro\nComponents: main\n"
    )

    def test_stanzas(self) -> None:
        text = apt_sources.with_components(self.DEB822, "bookworm", ("main", "non-free-firmware"))
        assert text == (
            "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n"
            "Components: main non-free-firmware\nSigned-By: /k.gpg\n"
        )

    def test_lines(self) -> None:
        given = (
            "# x\ndeb [signed-by=/k] http://m/ bookworm main\ndeb-src http://m/ bookworm main\ndeb http://m/ sid main\n"
        )
        assert (
            apt_sources.with_components(given, "bookworm", ("main",)) == "deb [signed-by=/k] http://m/ bookworm main\n"
        )

    def test_no_debian(self) -> None:
        with pytest.raises(SettingRefused, match="name no bookworm"):
            apt_sources.with_components("deb http://m/ubuntu noble main\n", "bookworm", ("main",))


class TestImage:
    def test_is_the_same_whenever_and_in_whatever_order_it_was_made(self, tmp_path: Path, image: Path) -> None:
        again = make(tmp_path, "card.img", ["home/alpha", "boot/firmware/overlays/x.dtbo", "home/zeta"])
        assert sha256(again.read_bytes()).hexdigest() == sha256(image.read_bytes()).hexdigest()
        for suffix in (".bmap", ".sha256", ".spdx.json"):
            assert again.with_name(again.name + suffix).read_text() == image.with_name(image.name + suffix).read_text()

    def test_is_found_in_order_by_the_doctor(self, image: Path) -> None:
        found = examine(image)
        assert found.problems == ()
        assert [(each.file_system, each.state) for each in found.partitions] == [
            ("fat", "sound"), ("ext4", "sound"), ("ext4", "sound"),
        ]  # fmt: skip
        assert (found.agent, found.agent_is_installed, found.has_booted) == ("0.1.0", True, False)

    def test_holds_nothing_of_the_machine_that_made_it_and_no_secret(self, image: Path) -> None:
        data = image.read_bytes()
        for secret in (
            b"mirror.of.this.machine",
            b"192.0.2.1",
            b"PRIVATE KEY",
            b"0123456789abcdef0123",
            PASSPHRASE.encode(),
        ):
            assert secret not in data
        _, tree, _ = (volume.tree for volume in open_medium(image).volumes)
        assert tree is not None
        assert tree.read("/etc/machine-id") == b""
        assert b"deb.debian.org" in (tree.read("/etc/apt/sources.list.d/debian.sources") or b"")
        assert tree.read("/root/.ssh/authorized_keys") == f"{KEY}\n".encode()

    def test_the_data_partition_has_the_agent_s_state(self, image: Path) -> None:
        _, root_tree, data_tree = (volume.tree for volume in open_medium(image).volumes)
        assert root_tree is not None
        assert data_tree is not None
        assert root_tree.names("/var/lib/autoglm-edge") == ()
        assert data_tree.read("/keep") == b"state\n"
        at = open_medium(image).volumes[2].partition.start_bytes
        said = subprocess.run(
            ["debugfs", "-R", "stat /", f"{image}?offset={at}"],
            capture_output=True,
            text=True,
            check=True,
            env=images.TOOLS,
        )
        assert "Mode:  0750" in said.stdout

    def test_boots_what_its_configuration_names(self, image: Path) -> None:
        tree = open_medium(image).volumes[0].tree
        assert tree is not None
        assert tree.read("/EFI/BOOT/BOOT.EFI") == b"MZ the boot loader"
        root_part = layout.identifiers("small").partition(2)
        for name in ("/loader/entries/debian.conf", "/extlinux/extlinux.conf"):
            assert f"root=PARTUUID={root_part}".encode() in (tree.read(name) or b"")
        with image.open("rb") as file:
            assert struct.unpack("<I", file.read(444)[440:])[0] == int(root_part.split("-")[0], 16)

    def test_by_its_map_a_card_full_of_other_things_becomes_sound(self, tmp_path: Path, image: Path) -> None:
        target = tmp_path / "card"
        target.write_bytes(os.urandom(1 << 20) * (image.stat().st_size >> 20) + bytes(1 << 20))
        written = write_card(open_source(image), disks.find(target))
        assert written < image.stat().st_size // 2
        found = examine(target)
        assert [each.state for each in found.partitions] == ["sound", "sound", "sound"]
        for mine, theirs in zip(open_medium(target).volumes, open_medium(image).volumes, strict=True):
            assert mine.tree is not None
            assert theirs.tree is not None
            assert mine.tree.names("/") == theirs.tree.names("/")
        kernel = open_medium(target).volumes[0].tree
        assert kernel is not None
        assert kernel.read("/vmlinuz") == b"a kernel " * 5000

    def test_its_checksum_and_bill(self, image: Path) -> None:
        digest, name = image.with_name("card.img.sha256").read_text().split()
        assert (digest, name) == (sha256(image.read_bytes()).hexdigest(), "card.img")
        bill = json.loads(image.with_name("card.img.spdx.json").read_text())
        urls = [each["externalRefs"][0]["referenceLocator"] for each in bill["packages"][1:]]
        assert f"pkg:deb/debian/autoglm-edge-agent@0.1.0?arch={NATIVE}" in urls
        assert "pkg:pypi/numpy@2.0" in urls
        assert bill["spdxVersion"] == "SPDX-2.3"
        assert len({each["SPDXID"] for each in bill["packages"]}) == len(bill["packages"])
        assert stat.S_IMODE(image.stat().st_mode) == 0o600, "a key of a network is in it"

    def test_packed_it_is_the_same_image(self, tmp_path: Path, image: Path) -> None:
        packed = make(tmp_path, "card.img.xz", [])
        source = open_source(packed)
        assert source.map == block_map.parse(block_map.beside(image).read_text())
        assert source.image_bytes == image.stat().st_size


@pytest.mark.parametrize("name", ["rpi4", "rpi3"])
def test_a_pi_finds_its_root_by_what_its_firmware_is_told(tmp_path: Path, name: str) -> None:
    known = layout.identifiers(name)
    package = read_package(packages.deb(tmp_path, "arm64"))
    sizes = {"boot_mib": 40, "root_mib": 24, "data_mib": 8}
    wanted = ImagePlan(board(name), tmp_path / "card.img", Payload(package), EPOCH, **sizes)  # type: ignore[arg-type]
    given = {each.path: each.data.decode() for each in files.before_packages(wanted, known)}
    assert given["/etc/default/raspi-firmware"].splitlines() == [
        f"ROOTPART=PARTUUID={known.partition(2)}",
        'CONSOLES="tty0 ttyS1,115200"',
        'KERNEL_ARCH="arm64"',
    ]
    assert not [path for path in given if path.startswith("/etc/kernel")], "the firmware's package has hooks of its own"
    assert {"sdhci_iproc", "mmc_block", "ext4"} <= {*given["/etc/initramfs-tools/modules"].split()}

    work = tmp_path / "work"
    root = made_root(work / "root", [])
    images.fill(root, {"boot/firmware/config.txt": "arm_64bit=1\n", "boot/firmware/start4.elf": "the firmware"})
    image = finish(wanted, root, work)
    assert examine(image).problems == ()
    medium = open_medium(image)
    (tree,) = medium.fats()
    assert (tree.read("/config.txt"), tree.read("/start4.elf")) == (b"arm_64bit=1\n", b"the firmware")
    assert tree.names("/EFI") == tree.names("/extlinux") == ()
    number, root_part = known.partition(2).split("-")
    assert (f"{medium.table.identifier:08x}", medium.volumes[1].partition.number) == (number, int(root_part))


class TestBadInput:
    def test_without_root(self, tmp_path: Path) -> None:
        code = (
            "import os, sys\nfrom pathlib import Path\nfrom tests.firmware.test_image import plan\n"
            "from autoglm_edge_firmware.image.root import must_be_possible\n"
            "wanted = plan(Path(sys.argv[1]), Path(sys.argv[1], 'card.img'))\n"
            "if os.geteuid() == 0:\n    os.setuid(65534)\nmust_be_possible(wanted)\n"
        )
        ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        assert "making an image needs root" in ended.stderr.splitlines()[-1]

    @pytest.mark.skipif(os.geteuid() != 0, reason="making an image needs root")
    @pytest.mark.parametrize(("program", "suffix"), [("xz", ".img.xz"), ("arch-test", ".img"), ("mcopy", ".img")])
    def test_what_would_be_missed_after_minutes_is_missed_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, suffix: str
    ) -> None:
        (tmp_path / "bin").mkdir()
        for name in {"arch-test", "dpkg", "mcopy", "mmdebstrap", "xz"} - {program}:
            (tmp_path / "bin" / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
        other = "arm64" if NATIVE == "amd64" else "amd64"
        payload = Payload(read_package(packages.deb(tmp_path / "other", other)))
        wanted = ImagePlan(board(f"generic-{other}"), tmp_path / f"card{suffix}", payload, EPOCH)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        with pytest.raises(ProgramFailed, match=f"{program}: not installed: apt install {PACKAGES[program]}"):
            must_be_possible(wanted)

    @pytest.mark.skipif(os.geteuid() != 0, reason="making an image needs root")
    def test_interrupted_it_waits_for_those_who_clean_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "bin").mkdir()
        program = tmp_path / "bin" / "mmdebstrap"
        # What it does when it is told to end: unmount, for a while, under the folder that it was given.
        begun, ended = tmp_path / "begun", tmp_path / "ended"
        program.write_text(
            f"#!/bin/sh\nsleep 60 &\ntrap 'kill $!; sleep 0.7; touch {ended}; exit 1' TERM\ntouch {begun}\nwait\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        (tmp_path / "sources.list").write_text("deb http://deb.debian.org/debian bookworm main\n")

        def interrupt(step: str, done: int, total: int) -> None:
            if begun.exists():
                raise KeyboardInterrupt

        wanted = replace(plan(tmp_path, tmp_path / "card.img"), sources=tmp_path / "sources.list")
        with pytest.raises(KeyboardInterrupt):
            build_image(wanted, interrupt)
        assert ended.exists()
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "card"))] == []

    def test_a_boot_partition_without_room(self, tmp_path: Path) -> None:
        work = tmp_path / "work"
        made_root(work / "root", [])
        (work / "root/boot/firmware/large").write_bytes(os.urandom(50 << 20))
        with pytest.raises(FirmwareError, match="no room"):
            finish(plan(tmp_path, tmp_path / "card.img"), work / "root", work)
        assert not (tmp_path / "card.img").exists()

    def test_a_root_without_room(self, tmp_path: Path) -> None:
        work = tmp_path / "work"
        made_root(work / "root", [])
        (work / "root/large").write_bytes(os.urandom(20 << 20))
        with pytest.raises(FirmwareError, match="partition root"):
            finish(plan(tmp_path, tmp_path / "card.img", root_mib=16), work / "root", work)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0, reason="making an image needs root")
def test_from_packages_twice_the_same_bytes(tmp_path: Path) -> None:
    """The whole of it, natively: Debian's packages, a package installed, an image; and once more."""
    sources = apt_sources.usual()
    made = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        wanted = replace(plan(folder, folder / "card.img"), sources=sources, root_mib=None)
        made.append(build_image(wanted))
        assert sorted(path.name for path in folder.iterdir() if path.name.startswith((".", "card"))) == [
            "card.img", "card.img.bmap", "card.img.sha256", "card.img.spdx.json",
        ]  # fmt: skip
    first, second = (sha256(path.read_bytes()).hexdigest() for path in made)
    found = examine(made[0])
    assert (found.agent, found.agent_is_installed, found.has_booted, found.problems) == ("0.1.0", True, False, ())
    data = made[0].read_bytes()
    for line in sources.read_text().splitlines():
        if line.startswith("URIs:") and "//deb.debian.org" not in line:
            assert line.split()[1].encode() not in data, "the address of this machine's mirror"
    assert PASSPHRASE.encode() not in data
    (root_tree,) = (tree for tree in open_medium(made[0]).exts() if tree.read("/etc/os-release"))
    assert [name for name in root_tree.names("/etc/ssh") if name.startswith("ssh_host")] == []
    assert first == second
