"""What the doctor of cards says, and that no secret is in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.firmware import images, packages

from autoglm_edge_agent.storage.slots import Slots
from autoglm_edge_firmware.customise import customise
from autoglm_edge_firmware.customise.payload import Payload, read_package
from autoglm_edge_firmware.doctor import examine
from autoglm_edge_firmware.errors import ImageUnusable
from autoglm_edge_firmware.settings.claim import read_claim
from autoglm_edge_firmware.settings.wifi import derive
from autoglm_edge_protocol.deployment import BundleReference, Installed

INSTALLED = "Package: autoglm-edge-agent\nStatus: install ok installed\nArchitecture: arm64\nVersion: 0.2.0\n\n"


def test_a_card_that_waits_for_its_first_boot(tmp_path: Path) -> None:
    image = images.make(tmp_path / "pi.img", images.BOOKWORM)
    wifi = derive("Werkstatt", "correct horse battery")
    claim = read_claim(packages.claim(tmp_path / "claim.json", 7))
    customise(image, Payload(read_package(packages.deb(tmp_path)), claim, wifi, "plant"), tmp_path / "out.img.xz")
    found = examine(tmp_path / "out.img.xz")

    assert (found.system, found.architecture, found.host_name) == (
        "Debian GNU/Linux 12 (bookworm)",
        "arm64",
        "raspberrypi",
    )
    assert (found.agent, found.agent_is_installed, found.has_booted) == ("0.1.0", False, False)
    assert found.claim is not None
    assert (found.claim_state, found.claim.fleet, found.claim.claim_id) == ("waiting", "plant", f"{7:016x}")
    assert [(each.file_system, each.state) for each in found.partitions] == [("fat", "sound"), ("ext4", "sound")]
    assert found.problems == ()
    told = json.dumps(found.as_json())
    for secret in (packages.SECRET, str(wifi.key), "correct horse"):
        assert secret not in told
    assert [path.name for path in tmp_path.glob(".*")] == [], "nothing is left"


def test_a_card_of_a_device(tmp_path: Path) -> None:
    reference = BundleReference(name="hole-finder", version="1.2.0", manifest_sha256="a" * 64, manifest_size_bytes=10)
    slots = Slots(current=Installed(bundle=reference, variant="int8"), unproven=True)
    root = images.root_of(
        **{
            "etc/machine-id": "0" * 32 + "\n",
            "var/lib/autoglm-edge/slots.json": slots.to_bytes().decode(),
            "var/lib/autoglm-edge/identity/identity.json": json.dumps(
                {"fleet": "plant", "device": "plant-1", "claim_id": "c" * 16, "broker_url": "mqtts://b:8883"}
            ),
            "var/lib/autoglm-edge/identity/device.key": "-----BEGIN PRIVATE KEY-----",
        }
    )
    root["var/lib/dpkg/status"] += INSTALLED
    found = examine(images.make(tmp_path / "pi.img", images.Layout({"cmdline.txt": "quiet\n"}, root)))

    assert (found.agent, found.agent_is_installed, found.has_booted) == ("0.2.0", True, True)
    assert found.identity is not None
    assert (found.claim_state, found.identity.fleet, found.identity.device) == ("used", "plant", "plant-1")
    assert found.bundles is not None
    assert (found.bundles.current, found.bundles.previous) == ("hole-finder@1.2.0 (int8)", None)
    assert found.bundles.unproven
    assert "PRIVATE KEY" not in json.dumps(found.as_json())


def test_an_expired_claim_is_a_problem(tmp_path: Path) -> None:
    image = images.make(tmp_path / "debian.img", images.DEBIAN)
    customise(image, Payload(claim=read_claim(packages.claim(tmp_path / "claim.json", 1, 100.0))))
    assert examine(image, now=99.0).claim_state == "waiting"
    found = examine(image, now=101.0)
    assert found.claim_state == "expired"
    assert "expired before it was used" in found.problems[0]


def test_a_card_pulled_out_of_a_running_board(tmp_path: Path) -> None:
    image = images.make(tmp_path / "pi.img", images.BOOKWORM)
    at = f"{image}?offset={images.BOOKWORM.root_at}"
    subprocess.run(["debugfs", "-w", "-R", "feature needs_recovery", at], check=True, env=images.TOOLS)
    found = examine(image)
    assert found.partitions[1].state.startswith("not unmounted")
    assert found.problems == (), "the next boot puts that right"


def test_a_damaged_file_system_is_told_of(tmp_path: Path) -> None:
    image = images.make(tmp_path / "pi.img", images.BOOKWORM)
    with image.open("rb+") as file:
        file.seek(images.BOOKWORM.root_at + 203 * 1024)  # in the table of inodes
        file.write(b"\xa5" * 1024)
    found = examine(image)
    assert any("partition 2" in problem and "damaged" in problem for problem in found.problems)


def test_a_folder(tmp_path: Path) -> None:
    root = images.fill(tmp_path / "rootfs", images.root_of())
    assert examine(root).system == "Debian GNU/Linux 12 (bookworm)"


@pytest.mark.parametrize("data", [b"", b"\x00" * 512, b"hello"])
def test_no_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.img").write_bytes(data)
    with pytest.raises(ImageUnusable):
        examine(tmp_path / "x.img")
