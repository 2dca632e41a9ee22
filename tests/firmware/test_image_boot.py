"""An image as `flash image` lays it out, on a larger card with a claim, in an emulated board: its first boot."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.boards import bootable
from tests.boards.abilities import why_not
from tests.boards.kernels import kernel
from tests.boards.machines import HOST, VIRT, Machine
from tests.boards.roots import unpack
from tests.boards.sites import PREFIX, SETTINGS, BoardSite, board_site
from tests.firmware import images

from autoglm_edge_firmware.customise.payload import Payload, read_package
from autoglm_edge_firmware.doctor import examine
from autoglm_edge_firmware.image import ImagePlan, files
from autoglm_edge_firmware.image.boards import board
from autoglm_edge_firmware.image.build import finish
from autoglm_edge_firmware.image.layout import identifiers
from autoglm_edge_firmware.media.opened import open_medium
from autoglm_edge_firmware.package.build import build_package
from autoglm_edge_firmware.write import disks
from autoglm_edge_firmware.write.cards import give_claim
from autoglm_edge_fleet.enrolment.claims import ClaimTerms
from autoglm_edge_protocol.claims import read_claim

PACKAGES = (*bootable.PACKAGES, "e2fsprogs", "fdisk", "linux-image-arm64", "systemd-boot-efi")
MODULES = ("fs/fat", "fs/nls")
CARD_BYTES = 3 << 30


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image whose packages are unpacked and not configured, which would take minutes."""
    if reason := why_not("qemu-aarch64"):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("image")
    work = folder / "work"
    work.mkdir()
    package = build_package("arm64", folder, pythons=("3.11",))
    root = work / "root"
    unpack("arm64", PACKAGES, root, work)
    bootable.settle(root)
    bootable.install(package, root)
    _keep_few_modules(root)
    # As mmdebstrap would find it there.
    (root / "etc/fstab").write_text(files.fstab(identifiers("generic-arm64")))
    payload = Payload(read_package(package), name_prefix="plant-a")
    return finish(ImagePlan(board("generic-arm64"), folder / "card.img", payload, 1_760_000_000), root, work)


def _keep_few_modules(root: Path) -> None:
    """What finds the card is in the initial file system; the rest of the kernel is of no use here."""
    (modules,) = (root / "usr/lib/modules").iterdir()
    for found in sorted(modules.rglob("*.ko*")):
        if not any(str(found.relative_to(modules / "kernel")).startswith(each) for each in MODULES):
            found.unlink()
    subprocess.run(["depmod", "-b", str(root), modules.name], check=True, env=images.TOOLS)
    (root / "boot/firmware").mkdir(parents=True, exist_ok=True)


@pytest.fixture
def site(image: Path, tmp_path: Path) -> Iterator[BoardSite]:
    card = tmp_path / "card.img"
    subprocess.run(["cp", "--sparse=always", str(image), str(card)], check=True)
    with card.open("rb+") as file:
        file.truncate(CARD_BYTES)
    machine = Machine(kernel(), card, tmp_path / "console", replace(VIRT, root="/dev/vda2"))
    with board_site(machine, tmp_path) as site:
        asks, belongs = (f"mqtts://{HOST}:{port}" for port in (site.broker.enrolment_port, site.broker.port))
        terms = ClaimTerms(3600, {"site": "berlin"})
        (claim,) = site.fleet.enrolment.create_claims(1, terms, asks, belongs, name_prefix=PREFIX)
        give_claim(disks.find(card), claim)
        (root, _) = open_medium(card).exts()
        root.write("/etc/autoglm-edge/agent.toml", SETTINGS.encode())
        yield site


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_card_becomes_a_device_with_its_data_on_a_partition_that_has_grown(site: BoardSite) -> None:
    card = site.machine.disk
    before = examine(card)
    assert (before.claim_state, before.problems) == ("waiting", ())
    boot = before.partitions[0]
    secret = _secret(card)
    site.switch_on()
    site.wait("enrolled with its claim", site.device)
    site.wait("connected as a device, with its certificate", site.online)
    site.machine.cut()
    print(
        *(f"{seconds:8.1f} s, {used:8.1f} s of the processor: {what}" for seconds, used, what in site.timeline),
        sep="\n",
    )

    for volume in open_medium(card).volumes[1:]:  # as the next boot would
        at = f"{card}?offset={volume.partition.start_bytes}"
        subprocess.run(["e2fsck", "-E", "journal_only", "-y", at], check=False, capture_output=True, env=images.TOOLS)
    after = examine(card)
    assert after.claim_state == "used"
    assert after.identity is not None
    assert after.identity.device.startswith(PREFIX)
    assert after.has_booted
    assert after.host_name.startswith("plant-a-")
    data = after.partitions[2]
    assert data.start_bytes + data.size_bytes == CARD_BYTES
    medium = open_medium(card)
    assert medium.exts()[1].size_bytes() > CARD_BYTES // 4, "the file system has grown with its partition"
    with card.open("rb") as file:
        file.seek(boot.start_bytes)
        assert secret not in file.read(boot.size_bytes), "the claim's bytes are overwritten on FAT"
    assert after.claim is None


def _secret(card: Path) -> bytes:
    (tree,) = open_medium(card).fats()
    return read_claim(tree.read("/autoglm-edge/claim.json") or b"").secret.encode()
