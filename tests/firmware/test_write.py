"""Writing cards: what is refused, what is on a card afterwards, and what a fault leaves."""

from __future__ import annotations

import errno
import json
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from tests.firmware import images, packages
from tests.firmware.cards import PulledCard, SmallerCard

from autoglm_edge_firmware.customise import customise
from autoglm_edge_firmware.customise.payload import Payload
from autoglm_edge_firmware.errors import CardRefused, ImageUnusable, SettingRefused
from autoglm_edge_firmware.media import block_map
from autoglm_edge_firmware.media.opened import open_medium
from autoglm_edge_firmware.progress import silent
from autoglm_edge_firmware.settings.claim import read_claim
from autoglm_edge_firmware.write import card as cards
from autoglm_edge_firmware.write import copying, disks
from autoglm_edge_firmware.write.cards import write_card, write_cards
from autoglm_edge_firmware.write.claim_folder import ClaimFolder
from autoglm_edge_firmware.write.copying import open_source

SMALL = images.Layout({"cmdline.txt": images.CMDLINE}, images.root_of(), boot_mib=34, root_mib=8)
MIB = images.MIB


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, packed and plain, with its map."""
    folder = tmp_path_factory.mktemp("image")
    plain = images.make(folder / "card.img", SMALL)
    in_use = [(0, MIB), (images.BOOT_AT, images.BOOT_AT + 2 * MIB), (SMALL.root_at, plain.stat().st_size)]
    block_map.beside(plain).write_text(block_map.to_text(block_map.measure(plain, in_use)))
    (folder / "card.img.xz").write_bytes(lzma.compress(plain.read_bytes(), preset=0))
    return plain


def card(path: Path, size_mib: int = 64) -> disks.Disk:
    """Return a card full of what was on it before."""
    path.write_bytes(os.urandom(MIB) * size_mib)
    return disks.find(path)


def disk(**more: object) -> dict[str, object]:
    usual = {"name": "sdb", "path": "/dev/sdb", "size": 32_000_000_000, "type": "disk", "rm": True, "ro": False}
    return {**usual, "hotplug": True, "tran": "usb", "model": "SD Reader", "mountpoints": [None], **more}


def part(mount: str | None, **more: object) -> dict[str, object]:
    return {"name": "sdb1", "path": "/dev/sdb1", "size": 1, "type": "part", "mountpoints": [mount], **more}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (disk(), None),
        (disk(rm=False, hotplug=False, tran=None, name="mmcblk0", path="/dev/mmcblk0"), None),
        (disk(children=[part(None)]), None),
        (disk(children=[part("/")]), "running system"),
        (
            disk(children=[part(None, children=[{"name": "root", "type": "lvm", "mountpoints": ["/"]}])]),
            "running system",
        ),
        (disk(children=[part("[SWAP]")]), "running system"),
        (disk(children=[part("/media/ann/bootfs")]), "mounted at /media/ann/bootfs"),
        (
            disk(children=[part(None, children=[{"name": "luks", "type": "crypt", "mountpoints": [None]}])]),
            "in use by luks",
        ),
        (disk(rm=False, hotplug=False, tran="nvme"), "not removable"),
        (disk(ro=True), "write-protected"),
        (disk(size=0), "without a card"),
        (disk(size=1000), "too small: 1000 bytes, and the image needs 2000"),
        (disk(type="part"), "not a whole card"),
    ],
)
def test_which_disks_are_written(entry: dict[str, object], words: str | None) -> None:
    (found,) = disks.parse(json.dumps({"blockdevices": [entry]}))
    reason = disks.refusal(found, 2000)
    assert (reason is None) if words is None else words in (reason or "")


def test_this_machine_s_own_disk_is_refused() -> None:
    source = subprocess.run(
        ["findmnt", "-no", "SOURCE", "/"], capture_output=True, text=True, check=True
    ).stdout.strip()
    mine = [each for each in disks.installed() if "/" in each.mounts]
    assert all("running system" in (disks.refusal(each, 0) or "") for each in mine), source
    assert not {each.path for each in mine} & {each.path for each in disks.candidates(disks.installed())}


@pytest.mark.parametrize("name", ["card.img", "card.img.xz"])
def test_a_card_holds_what_its_map_says(tmp_path: Path, image: Path, name: str) -> None:
    target = card(tmp_path / "card")
    before = target.path.read_bytes()
    source = open_source(image.with_name(name))
    written = write_card(source, target)

    assert source.map is not None
    assert written == source.map.mapped_bytes < image.stat().st_size
    after = target.path.read_bytes()
    wanted = bytearray(before)
    for span in source.map.spans:
        wanted[span.start_bytes : span.end_bytes] = image.read_bytes()[span.start_bytes : span.end_bytes]
    assert sha256(after).digest() == sha256(wanted).digest()
    assert not images.sound(target.path, SMALL.root_at)


def test_a_card_without_a_map_is_the_image(tmp_path: Path, image: Path) -> None:
    alone = tmp_path / "alone.img.zst"
    subprocess.run(["zstd", "-q", str(image), "-o", str(alone)], check=True)
    target = card(tmp_path / "card")
    assert open_source(alone).image_bytes is None
    steps: dict[str, int] = {}

    def progress(step: str, done: int, total: int) -> None:
        assert done >= steps.get(step, 0)
        steps[step] = done

    assert write_card(open_source(alone), target, progress) == image.stat().st_size
    assert target.path.read_bytes()[: image.stat().st_size] == image.read_bytes()
    assert steps == {"writing": image.stat().st_size, "reading back": image.stat().st_size}


def test_bmaptool_reads_our_map(tmp_path: Path, image: Path) -> None:
    target = card(tmp_path / "card")
    ended = subprocess.run(["bmaptool", "copy", str(image), str(target.path)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    mine = card(tmp_path / "mine")
    write_card(open_source(image), mine)
    span = block_map.parse(block_map.beside(image).read_text()).spans[1]
    at = slice(span.start_bytes, span.end_bytes)
    assert target.path.read_bytes()[at] == mine.path.read_bytes()[at] == image.read_bytes()[at]


def test_a_loop_device(tmp_path: Path, image: Path) -> None:
    backing = card(tmp_path / "card").path
    ended = subprocess.run(["losetup", "--find", "--show", str(backing)], capture_output=True, text=True)
    if ended.returncode != 0:
        pytest.skip("no loop devices here")
    device = Path(ended.stdout.strip())
    try:
        write_card(open_source(image), disks.find(device))
        subprocess.run(["sync", str(device)], check=True)
        assert open_medium(backing).table == open_medium(image).table
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=True)


class TestMany:
    def test_each_card_has_a_claim_of_its_own(self, tmp_path: Path, image: Path) -> None:
        for number in range(4):
            packages.claim(tmp_path / "claims" / f"{number}.json", number, 1.0 if number == 0 else packages.LATER)
        claims = ClaimFolder(tmp_path / "claims")
        found = [card(tmp_path / f"card-{number}") for number in range(3)]
        results = write_cards(open_source(image), found, claims, lambda _: silent)

        assert [result.problem for result in results] == ["", "", ""]
        on_cards = [json.loads(images.boot_file(each.path, "autoglm-edge/claim.json"))["claim_id"] for each in found]
        assert on_cards == [result.claim_id for result in results] == [f"{number:016x}" for number in (1, 2, 3)]
        assert [path.name for path in claims.waiting()] == ["0.json"], "the expired one is nobody's"
        with pytest.raises(SettingRefused, match="no claim is left"):
            claims.take()

    def test_too_few_claims_are_noticed_before_anything_is_written(self, tmp_path: Path, image: Path) -> None:
        packages.claim(tmp_path / "claims" / "1.json")
        found = [card(tmp_path / f"card-{number}") for number in range(2)]
        before = [each.path.read_bytes() for each in found]
        with pytest.raises(SettingRefused):
            write_cards(open_source(image), found, ClaimFolder(tmp_path / "claims"), lambda _: silent)
        assert before == [each.path.read_bytes() for each in found]
        assert len(ClaimFolder(tmp_path / "claims").waiting()) == 1

    def test_one_that_fails_does_not_hold_up_the_others(self, tmp_path: Path, image: Path) -> None:
        for number in range(2):
            packages.claim(tmp_path / "claims" / f"{number}.json", number)
        found = [card(tmp_path / "small", 8), card(tmp_path / "large")]
        claims = ClaimFolder(tmp_path / "claims")
        small, large = write_cards(open_source(image), found, claims, lambda _: silent)
        assert "too small" in small.problem
        assert (large.problem, large.claim_id) == ("", f"{1:016x}")
        assert [path.name for path in claims.waiting()] == ["0.json"], "its claim is another card's"

    def test_a_claim_in_the_image_is_not_copied(self, tmp_path: Path, image: Path) -> None:
        claimed = tmp_path / "claimed.img"
        customise(image, Payload(claim=read_claim(packages.claim(tmp_path / "c.json"))), claimed)
        found = [card(tmp_path / f"card-{number}") for number in range(2)]
        results = write_cards(open_source(claimed), found, None, lambda _: silent)
        assert all("one board's" in result.problem for result in results)
        for each in found:
            with pytest.raises(ImageUnusable, match="no partition table"):
                open_medium(each.path)


class TestBadInput:
    def test_pulled_out_at_any_moment_it_is_no_card_for_a_board(self, tmp_path: Path, image: Path) -> None:
        source = open_source(image)
        assert source.map is not None
        for after in (100, 3 * MIB, source.map.mapped_bytes - MIB):
            target = card(tmp_path / f"card-{after}")
            with cards.opened(target.path) as opened, pytest.raises(CardRefused, match="pulled out") as caught:
                copying.write(source, PulledCard(opened, after), target.path)
            assert "\n" not in str(caught.value)
            if after > 512:
                with pytest.raises(ImageUnusable, match="no partition table"):
                    open_medium(target.path)

    def test_a_card_that_is_smaller_than_it_says(self, tmp_path: Path, image: Path) -> None:
        target = card(tmp_path / "card")
        with cards.opened(target.path) as opened, pytest.raises(CardRefused, match="does not keep"):
            copying.write(open_source(image), SmallerCard(opened, 2 * MIB), target.path)
        with pytest.raises(ImageUnusable):
            open_medium(target.path)

    def test_too_small_for_an_image_of_unknown_size(self, tmp_path: Path, image: Path) -> None:
        alone = tmp_path / "alone.img.zst"
        subprocess.run(["zstd", "-q", str(image), "-o", str(alone)], check=True)
        with pytest.raises(CardRefused, match="too small"):
            write_card(open_source(alone), card(tmp_path / "card", 16))

    def test_a_damaged_archive_is_noticed_and_leaves_no_table(self, tmp_path: Path, image: Path) -> None:
        damaged = tmp_path / "card.img.xz"
        data = bytearray(image.with_name("card.img.xz").read_bytes())
        data[len(data) // 2] ^= 1
        damaged.write_bytes(data)
        target = card(tmp_path / "card")
        with pytest.raises(ImageUnusable, match="damaged"):
            write_card(open_source(damaged), target)
        with pytest.raises(ImageUnusable, match="no partition table"):
            open_medium(target.path)

    def test_an_archive_cut_short(self, tmp_path: Path, image: Path) -> None:
        short = tmp_path / "card.img.xz"
        short.write_bytes(image.with_name("card.img.xz").read_bytes()[:-100])
        with pytest.raises(ImageUnusable, match="damaged or cut short"):
            open_source(short)

    def test_an_archive_of_zstd_cut_short(self, tmp_path: Path, image: Path) -> None:
        short = tmp_path / "card.img.zst"
        subprocess.run(["zstd", "-q", str(image), "-o", str(short)], check=True)
        os.truncate(short, short.stat().st_size - 100)
        target = card(tmp_path / "card")
        with pytest.raises(ImageUnusable, match="damaged or cut short"):
            write_card(open_source(short), target)
        with pytest.raises(ImageUnusable, match="no partition table"):
            open_medium(target.path)

    def test_an_image_that_is_not_its_map_s(self, tmp_path: Path, image: Path) -> None:
        other = images.make(tmp_path / "card.img", images.Layout({"cmdline.txt": "other\n"}, SMALL.root, 34, 8))
        block_map.beside(other).write_text(block_map.beside(image).read_text())
        with pytest.raises(ImageUnusable, match="block map is of another image"):
            write_card(open_source(other), card(tmp_path / "card"))

    def test_a_map_that_was_changed(self, tmp_path: Path, image: Path) -> None:
        text = block_map.beside(image).read_text().replace("<BlockSize> 4096", "<BlockSize> 4095")
        (tmp_path / "x.bmap").write_text(text)
        with pytest.raises(ImageUnusable, match="checksum"):
            open_source(image, tmp_path / "x.bmap")

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (errno.EBUSY, "unmount it first"),
            (errno.EROFS, "write-protected|sudo"),
            (errno.ENOMEDIUM, "pulled out"),
            (errno.ENOSPC, "too small"),
            (errno.EMFILE, "cannot be written"),
        ],
    )
    def test_what_the_system_says_is_told_in_words_of_cards(self, tmp_path: Path, code: int, words: str) -> None:
        assert re.search(words, str(cards.refused(tmp_path, OSError(code, os.strerror(code)))))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can do without its rights for a while")
    def test_without_root(self, image: Path) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)
            source, target = open_source(Path(shutil.copy(image, folder))), card(folder / "card")
            target.path.chmod(0o640)
            before = target.path.read_bytes()
            os.seteuid(65534)
            try:
                with pytest.raises(CardRefused, match="run this with sudo") as caught:
                    write_card(source, target)
            finally:
                os.seteuid(0)
            assert "\n" not in str(caught.value)
            assert target.path.read_bytes() == before

    def test_a_write_protected_device(self, tmp_path: Path, image: Path) -> None:
        ended = subprocess.run(
            ["losetup", "--find", "--show", "--read-only", str(card(tmp_path / "card").path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            pytest.skip("no loop devices here")
        device = ended.stdout.strip()
        try:
            with pytest.raises(CardRefused, match="write-protected"):
                write_card(open_source(image), disks.find(Path(device)))
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)

    @pytest.mark.parametrize("path", ["/dev/null", "/dev/there-is-none"])
    def test_no_card(self, path: str) -> None:
        with pytest.raises(CardRefused):
            disks.find(Path(path))
