"""What `flash image --board rpi3` makes of Debian's packages, in an emulated Pi 3: from power to a device of the fleet.

Kernel, initial file system, device tree and command line are those of the image's boot partition, as a Pi's firmware
would load them. Making it translates every script of Debian's packages, which takes a quarter of an hour.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.boards.abilities import BOOT, why_not
from tests.boards.kernels import Kernel
from tests.boards.machines import RASPI3B, Machine
from tests.boards.sites import board_site, kept_log
from tests.firmware import images

from autoglm_edge_firmware.doctor import examine
from autoglm_edge_firmware.media.opened import open_medium
from autoglm_edge_firmware.write import disks
from autoglm_edge_firmware.write.cards import give_claim

CARD_BYTES = 4 << 30
"""The emulated reader takes cards of powers of two alone."""


@pytest.mark.release
@pytest.mark.timeout(5400)
def test_a_card_of_debians_packages_makes_a_pi_a_device(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if reason := why_not("qemu-aarch64", *BOOT):
        pytest.skip(reason)
    card = tmp_path / "card.img"
    command = [str(Path(sys.executable).with_name("autoglm-edge")), "flash", "image", "--board", "rpi3"]
    options = ["--hostname-prefix", "plant-a", "--wifi", "Plant", "--wifi-country", "DE", "-o", str(card)]
    environment = {**os.environ, "AUTOGLM_EDGE_WIFI_PASSPHRASE": "correct horse battery"}
    made = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    with card.open("rb+") as file:
        file.truncate(CARD_BYTES)
    (boot,) = open_medium(card).fats()
    arguments = (boot.read("/cmdline.txt") or b"").decode().strip()
    machine = Machine(_kernel(card, tmp_path / "kernel"), card, kept_log(request.node.name), RASPI3B, arguments)
    with board_site(machine, tmp_path / "site") as site:
        give_claim(disks.find(card), site.claim(36_000))
        site.switch_on()
        site.wait("enrolled with its claim", site.device, 1800)
        site.wait("connected as a device, with its certificate", site.online, 900)
        report = site.wait("it reports", site.report, 300)
        assert report.facts.board.startswith("Raspberry Pi 3 Model B")
    images.play_back(card)
    after = examine(card)
    assert (after.claim_state, after.has_booted) == ("used", True)
    assert after.host_name.startswith("plant-a-")
    data = after.partitions[2]
    assert data.start_bytes + data.size_bytes == CARD_BYTES


def _kernel(card: Path, folder: Path) -> Kernel:
    """Take out of the boot partition what its `config.txt` names."""
    folder.mkdir()
    (boot,) = open_medium(card).fats()
    lines = (boot.read("/config.txt") or b"").decode().splitlines()
    kernel = Kernel(folder)
    (image,) = (line.partition("=")[2] for line in lines if line.startswith("kernel="))
    (initial,) = (line.split()[1] for line in lines if line.startswith("initramfs "))
    assert RASPI3B.tree is not None
    for name, target in ((image, kernel.image), (initial, kernel.initrd), (RASPI3B.tree, folder / RASPI3B.tree)):
        data = boot.read(f"/{name}")
        assert data is not None, name
        target.write_bytes(data)
    return kernel
