"""Images of the systems that people use, each customised in its own way, and sound afterwards."""

from __future__ import annotations

import email
import json
import lzma
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
from tests.faults.small_disks import SmallDisk
from tests.firmware import images, packages

from autoglm_edge_firmware.customise import customise, hooks
from autoglm_edge_firmware.customise.payload import Payload, read_package
from autoglm_edge_firmware.customise.perform import look
from autoglm_edge_firmware.customise.system import Way
from autoglm_edge_firmware.errors import FirmwareError, ImageUnusable, SettingRefused
from autoglm_edge_firmware.settings.claim import read_claim
from autoglm_edge_firmware.settings.wifi import derive

PASSPHRASE = "correct horse battery"


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    return Payload(
        read_package(packages.deb(tmp_path)),
        read_claim(packages.claim(tmp_path / "claim.json")),
        derive("Werkstatt", PASSPHRASE, "DE"),
        "plant-a",
    )


def both_sound(image: Path, layout: images.Layout) -> bool:
    return not images.sound(image, layout.root_at) and not images.sound_fat(image, layout)


def holds_no_passphrase(image: Path) -> bool:
    return PASSPHRASE.encode() not in image.read_bytes()


@pytest.mark.parametrize(
    ("layout", "mount"), [(images.BOOKWORM, "/boot/firmware"), (images.BULLSEYE, "/boot")], ids=["bookworm", "bullseye"]
)
def test_firstrun(tmp_path: Path, payload: Payload, layout: images.Layout, mount: str) -> None:
    image = images.make(tmp_path / "pi.img", layout)
    done = customise(image, payload)

    assert done.plan.way is Way.FIRSTRUN
    assert both_sound(image, layout)
    assert holds_no_passphrase(image)
    words = images.boot_file(image, "cmdline.txt")
    assert words.startswith(images.CMDLINE.strip())
    assert words.count("\n") == 1
    assert f"systemd.run={mount}/firstrun.sh systemd.run_success_action=reboot" in words
    claim = json.loads(images.boot_file(image, "autoglm-edge/claim.json"))
    assert (claim["name_prefix"], claim["secret"]) == ("plant-a", packages.SECRET)
    assert "psk=" in images.boot_file(image, "autoglm-edge/wifi/autoglm-edge.nmconnection")
    assert image.stat().st_mode & 0o077 == 0, "an image with a claim is its owner's alone"


def test_firstrun_once_and_beside_what_the_imager_wrote(tmp_path: Path, payload: Payload) -> None:
    imager = "#!/bin/bash\nset +e\necho given > /etc/hostname\nrm -f /boot/firstrun.sh\nexit 0\n"
    line = images.CMDLINE.strip() + " systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot\n"
    layout = images.Layout(
        {**(images.BOOKWORM.boot or {}), "firstrun.sh": imager, "cmdline.txt": line}, images.root_of()
    )
    image = images.make(tmp_path / "pi.img", layout)
    customise(image, payload)
    customise(image, payload)

    script = images.boot_file(image, "firstrun.sh")
    assert script.count("begin.sh") == hooks.firstrun(None, "/boot").count("begin.sh")
    assert script.replace(hooks.call(now=False) + "\n", "").replace("# autoglm-edge begins here\n", "") == imager
    assert images.boot_file(image, "cmdline.txt") == line
    assert both_sound(image, layout)


def test_what_firstrun_leaves_is_the_command_line_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "cmdline.txt").write_text(hooks.command_line(images.CMDLINE, str(tmp_path)))
    script = tmp_path / "firstrun.sh"
    script.write_text(hooks.firstrun(None, str(tmp_path)).replace("/boot", "/nowhere"))
    subprocess.run(["sh", str(script)], check=True)
    assert (tmp_path / "cmdline.txt").read_text() == images.CMDLINE
    assert not script.exists()


def test_cloud_init(tmp_path: Path, payload: Payload) -> None:
    image = images.make(tmp_path / "pi.img", images.TRIXIE)
    customise(image, payload)
    done = customise(image, payload)

    assert done.plan.way is Way.CLOUD_INIT
    assert both_sound(image, images.TRIXIE)
    assert holds_no_passphrase(image)
    parts = list(email.message_from_string(images.boot_file(image, "user-data")).walk())[1:]
    assert [part.get_content_type() for part in parts] == ["text/cloud-config", "text/x-shellscript"]
    kept = parts[0].get_payload(decode=True)
    assert isinstance(kept, bytes)
    assert kept.decode() == (images.TRIXIE.boot or {})["user-data"]
    assert images.boot_file(image, "meta-data") == "instance-id: rpi-imager-1\n"
    assert images.boot_file(image, "cmdline.txt") == (images.TRIXIE.boot or {})["cmdline.txt"]


def test_cloud_init_without_an_instance(tmp_path: Path, payload: Payload) -> None:
    image = images.make(tmp_path / "ubuntu.img", images.UBUNTU)
    customise(image, payload)
    assert images.boot_file(image, "meta-data") == "instance-id: autoglm-edge\n"


@pytest.mark.parametrize(
    ("layout", "done"),
    [(images.TRIXIE, "var/lib/cloud/instance"), (images.PRESEEDED, "var/lib/rpi-preseed/applied")],
    ids=["cloud-init", "preseed"],
)
def test_what_looks_at_the_first_boot_alone_is_not_used_later(
    tmp_path: Path, payload: Payload, layout: images.Layout, done: str
) -> None:
    booted = images.Layout(layout.boot, {**layout.root, done: "x"})
    image = images.make(tmp_path / "pi.img", booted)
    assert customise(image, payload).plan.way is Way.FIRSTRUN


@pytest.mark.parametrize("given", ["hello: world", "\x7fELF"])
def test_user_data_of_no_known_kind_is_left_alone(given: str) -> None:
    with pytest.raises(SettingRefused, match="no known kind"):
        hooks.user_data(given)


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        '# mine\nconfig_version = "1.1"\n\n[user]\nname = "ann"\n',
        '[runcmd]\nlate = ["true"]  # kept\n',
        "[runcmd] # all\nearly = ['a [b]', \"c\"]\nlate = []\n\n[ssh]\nenabled = true\n",
        '[runcmd]\nearly = [\n  "one",\n  "two",\n]\n',
        "[runcmd]\nearly = []",
    ],
)
def test_preseed_keeps_what_is_there(given: str | None) -> None:
    before = tomllib.loads(given or "")
    after = tomllib.loads(hooks.preseed(given))
    early = after["runcmd"].pop("early")
    assert early == [hooks.call(), *before.get("runcmd", {}).pop("early", [])]
    assert {"runcmd": {}, **before} == {"runcmd": {}, **after} if given else after["config_version"] == "1.1"
    assert hooks.preseed(hooks.preseed(given)) == hooks.preseed(given)


@pytest.mark.parametrize("given", ["[runcmd\n", "runcmd.early = []\n"])
def test_preseed_that_cannot_be_added_to(given: str) -> None:
    with pytest.raises(SettingRefused, match=r"rpi-preseed\.toml"):
        hooks.preseed(given)


def test_preseed(tmp_path: Path, payload: Payload) -> None:
    image = images.make(tmp_path / "pi.img", images.PRESEEDED)
    assert customise(image, payload).plan.way is Way.PRESEED
    assert hooks.call() in tomllib.loads(images.boot_file(image, "rpi-preseed.toml"))["runcmd"]["early"]
    assert both_sound(image, images.PRESEEDED)


@pytest.mark.parametrize("layout", [images.DEBIAN, images.BOOKWORM], ids=["debian", "bookworm"])
def test_a_unit_of_the_root(tmp_path: Path, payload: Payload, layout: images.Layout) -> None:
    image = images.make(tmp_path / "debian.img", layout)
    customise(image, payload, way=Way.UNIT)

    assert not images.sound(image, layout.root_at)
    wanted = "/etc/systemd/system/multi-user.target.wants/autoglm-edge-install.service"
    assert "/etc/systemd/system/autoglm-edge-install.service" in images.root_file(image, layout, f"stat {wanted}")
    unit = images.root_file(image, layout, "cat /etc/systemd/system/autoglm-edge-install.service")
    assert "install.sh /usr/local/lib/autoglm-edge-install\n" in unit
    assert "@" not in unit
    about = images.root_file(image, layout, "stat /usr/local/lib/autoglm-edge-install/wifi/autoglm-edge.nmconnection")
    assert re.search(r"Mode:  0600 .*\nGeneration.*\nUser: +0 +Group: +0 ", about)
    if layout.boot is None:
        claim = images.root_file(image, layout, "stat /etc/autoglm-edge/claim.json")
        assert "Mode:  0600" in claim


def test_a_folder(tmp_path: Path, payload: Payload) -> None:
    root = images.fill(tmp_path / "rootfs", images.root_of())
    customise(root, payload)
    claim = root / "etc/autoglm-edge/claim.json"
    assert json.loads(claim.read_text())["fleet"] == "plant"
    assert claim.stat().st_mode & 0o777 == 0o600
    assert (root / "etc/systemd/system/multi-user.target.wants/autoglm-edge-install.service").is_symlink()


def test_a_folder_whose_links_lead_out_of_it(tmp_path: Path, payload: Payload) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = images.fill(tmp_path / "rootfs", images.root_of())
    (root / "etc/autoglm-edge").symlink_to(f"../../{outside.name}")
    customise(root, payload)
    assert not any(outside.iterdir())
    assert (root / outside.name / "claim.json").is_file()


def test_compressed_in_and_out(tmp_path: Path, payload: Payload) -> None:
    plain = images.make(tmp_path / "pi.img", images.BOOKWORM)
    packed = tmp_path / "pi.img.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes(), preset=0))
    with pytest.raises(ImageUnusable, match="--output"):
        customise(packed, payload)
    out = tmp_path / "out" / "mine.img.zst"
    out.parent.mkdir()
    customise(packed, payload, out)
    assert out.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    again = tmp_path / "again.img"
    customise(out, Payload(name_prefix="plant-b"), again)
    assert images.boot_file(again, "autoglm-edge/name-prefix") == "plant-b\n"
    assert both_sound(again, images.BOOKWORM)
    assert sorted(path.name for path in out.parent.iterdir()) == ["mine.img.zst"], "nothing is left beside it"


def test_looking_changes_nothing_and_tells_no_secret(tmp_path: Path, payload: Payload) -> None:
    image = images.make(tmp_path / "pi.img", images.BOOKWORM)
    before = image.read_bytes()
    told = "\n".join(look(image, payload).plan.lines())
    assert image.read_bytes() == before
    assert "claim.json" in told
    for secret in (packages.SECRET, PASSPHRASE, str(payload.wifi and payload.wifi.key)):
        assert secret not in told
        assert secret not in repr(payload)


class TestBadInput:
    def refused(self, image: Path, payload: Payload, kind: type[FirmwareError], words: str) -> None:
        before = image.read_bytes()
        with pytest.raises(kind, match=words) as caught:
            customise(image, payload)
        assert "\n" not in str(caught.value)
        assert image.read_bytes() == before
        assert not list(image.parent.glob(".*.part*"))

    def test_cut_short(self, tmp_path: Path, payload: Payload) -> None:
        image = images.make(tmp_path / "pi.img", images.BOOKWORM)
        os.truncate(image, 30 << 20)
        self.refused(image, payload, ImageUnusable, "cut short")

    @pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a zip", bytes(4096), os.urandom(4096)])
    def test_no_image(self, tmp_path: Path, payload: Payload, data: bytes) -> None:
        image = tmp_path / "pi.img"
        image.write_bytes(data)
        self.refused(image, payload, ImageUnusable, "not an image|empty")

    def test_an_archive_cut_short(self, tmp_path: Path, payload: Payload) -> None:
        packed = tmp_path / "pi.img.xz"
        packed.write_bytes(lzma.compress(os.urandom(100_000))[:50_000])
        with pytest.raises(ImageUnusable, match="damaged or cut short"):
            customise(packed, payload, tmp_path / "out.img")
        assert not (tmp_path / "out.img").exists()

    def test_an_unknown_layout(self, tmp_path: Path, payload: Payload) -> None:
        image = images.make(tmp_path / "x.img", images.Layout({"EFI.txt": "x"}, {"etc/motd": "hello\n"}))
        self.refused(image, payload, ImageUnusable, "unknown layout")

    def test_no_room_on_the_boot_partition(self, tmp_path: Path, payload: Payload) -> None:
        full = {**(images.BOOKWORM.boot or {}), "kernel8.img": "k" * (38 << 20)}
        image = images.make(tmp_path / "pi.img", images.Layout(full, images.root_of()))
        large = Payload(read_package(self.large(tmp_path)))
        self.refused(image, large, ImageUnusable, "no room")

    def test_no_room_on_the_root(self, tmp_path: Path) -> None:
        image = images.make(tmp_path / "debian.img", images.Layout(None, images.DEBIAN.root, root_mib=5))
        self.refused(image, Payload(read_package(self.large(tmp_path))), ImageUnusable, "no room")

    def large(self, tmp_path: Path) -> Path:
        package = packages.deb(tmp_path, version="9")
        data = package.read_bytes()
        # As large as a real one: a member more, of the same archive.
        member = os.urandom(6 << 20)
        package.write_bytes(data + b"_more           0           0     0     100644  %-10d`\n" % len(member) + member)
        return package

    def test_no_room_on_the_workstation(self, tmp_path: Path) -> None:
        boot = {"cmdline.txt": "quiet\n", "kernel8.img": "k" * (6 << 20)}
        images.make(tmp_path / "pi.img", images.Layout(boot, images.root_of()))
        small = SmallDisk(tmp_path / "small", 4 << 20, mounted=True)
        if "unshare" not in small.wrapper[0]:
            pytest.skip("no file systems may be mounted here")
        command = [sys.executable, "-c", "from autoglm_edge.app import main; main()", "flash", "customise"]
        options = [
            str(tmp_path / "pi.img"),
            "--package",
            str(packages.deb(tmp_path)),
            "-o",
            str(small.directory / "x.img"),
        ]
        ended = subprocess.run([*small.wrapper, *command, *options], capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert "cannot be written there: No space left" in ended.stderr.splitlines()[-1]

    def test_a_package_for_another_system(self, tmp_path: Path) -> None:
        image = images.make(tmp_path / "pi.img", images.BOOKWORM)
        other = Payload(read_package(packages.deb(tmp_path, "armhf")))
        self.refused(image, other, ImageUnusable, "a system for arm64, but the package is for armhf")

    def test_a_root_that_was_not_unmounted(self, tmp_path: Path, payload: Payload) -> None:
        image = images.make(tmp_path / "debian.img", images.DEBIAN)
        at = f"{image}?offset={images.DEBIAN.root_at}"
        subprocess.run(["debugfs", "-w", "-R", "feature needs_recovery", at], check=True, env=images.TOOLS)
        self.refused(image, payload, ImageUnusable, "not unmounted cleanly")

    def test_another_program_at_the_first_boot(self, tmp_path: Path, payload: Payload) -> None:
        boot = {**(images.BOOKWORM.boot or {}), "cmdline.txt": "quiet systemd.run=/boot/theirs.sh\n"}
        image = images.make(tmp_path / "pi.img", images.Layout(boot, images.root_of()))
        self.refused(image, payload, SettingRefused, "another program")

    @pytest.mark.parametrize(
        "data", [b"", b"no package", b"!<arch>\n", b"!<arch>\ndebian-binary   0  0 0 644  400  `\n"]
    )
    def test_no_package(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "x.deb").write_bytes(data)
        with pytest.raises(SettingRefused, match="not a Debian package"):
            read_package(tmp_path / "x.deb")

    @pytest.mark.parametrize("prefix", ["-x", "X", "a b", "a" * 41, "a\nb"])
    def test_a_name_that_no_host_has(self, prefix: str) -> None:
        with pytest.raises(SettingRefused):
            Payload(name_prefix=prefix)


def test_the_board_installs_it_by_itself(tmp_path: Path) -> None:
    """The script of the card, with the real dpkg and systemctl, in the folder of a root."""
    card = tmp_path / "boot" / "autoglm-edge"
    root = images.fill(
        tmp_path / "root",
        {
            "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 raspberrypi\n",
            "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
            "proc/device-tree/serial-number": "10000000a1b2c3d4\x00",
            "etc/NetworkManager/system-connections/.keep": "",
            "var/lib/dpkg/status": "",
            "var/lib/dpkg/updates/.keep": "",
        },
    )
    (root / "var/lib/dpkg/updates/.keep").unlink()
    (root / "var/lib/dpkg/info").mkdir()
    package = read_package(packages.deb(tmp_path, "all"))
    payload = Payload(package, None, derive("Werkstatt", PASSPHRASE), "plant-a")
    images.fill(tmp_path / "boot", {"cmdline.txt": "quiet\n"})
    from autoglm_edge_firmware.customise.payload import board_file, contents
    from autoglm_edge_firmware.media.trees import FolderTree

    for each in contents(payload, "/autoglm-edge"):
        FolderTree(tmp_path / "boot").write(each.path, each.data, each.mode)
    for name in ("begin.sh", "autoglm-edge-install.service"):
        (card / name).write_bytes(board_file(name))

    env = {**images.TOOLS, "AUTOGLM_EDGE_ROOT": str(root)}
    for _ in range(2):  # as after a loss of power
        subprocess.run(["sh", str(card / "begin.sh")], check=True, env=env, capture_output=True)
    wanted = root / "etc/systemd/system/multi-user.target.wants/autoglm-edge-install.service"
    assert wanted.is_symlink()
    install = root / "usr/local/lib/autoglm-edge-install/install.sh"
    for _ in range(2):
        ended = subprocess.run([str(install), str(card)], check=False, env=env, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr

    assert (root / "etc/hostname").read_text() == "plant-a-a1b2c3d4\n"
    assert "127.0.1.1\tplant-a-a1b2c3d4\n" in (root / "etc/hosts").read_text()
    connection = root / "etc/NetworkManager/system-connections/autoglm-edge.nmconnection"
    assert connection.stat().st_mode & 0o777 == 0o600
    assert (root / "opt/autoglm-edge/version").read_text() == "0.1.0"
    assert not wanted.is_symlink(), "it takes itself out"
    assert sorted(path.name for path in card.iterdir()) == ["autoglm-edge-install.service", "begin.sh", "install.sh"]
