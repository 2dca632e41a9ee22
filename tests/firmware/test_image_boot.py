"""An image as `flash image` lays it out, on a larger card with a claim, in an emulated board.

From its first boot to a device whose models and state are on the data partition, also after a loss of power.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.boards import bootable
from tests.boards.abilities import why_not
from tests.boards.kernels import kernel
from tests.boards.machines import VIRT, Machine
from tests.boards.roots import unpack
from tests.boards.sites import PREFIX, SETTINGS, BoardSite, board_site, kept_log
from tests.fakes.model_bundles import ModelBundle, make_model_bundle
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
from autoglm_edge_fleet.deployments import Deployment
from autoglm_edge_protocol.claims import read_claim
from autoglm_edge_protocol.names import BundleId
from autoglm_edge_protocol.probation import ProbationTerms

PACKAGES = (*bootable.PACKAGES, "e2fsprogs", "fdisk", "linux-image-arm64", "systemd-boot-efi")
MODULES = ("fs/fat", "fs/nls")
CARD_BYTES = 3 << 30
TERMS = ProbationTerms(duration_s=2, inferences=0, max_latency_ratio=1000, max_memory_ratio=1000)
"""Latency and memory under translation say nothing."""
INPUT = np.random.default_rng(1).standard_normal((1, 64), dtype=np.float32)


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
def site(image: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BoardSite]:
    card = tmp_path / "card.img"
    subprocess.run(["cp", "--sparse=always", str(image), str(card)], check=True)
    with card.open("rb+") as file:
        file.truncate(CARD_BYTES)
    machine = Machine(kernel(), card, kept_log(request.node.name), replace(VIRT, root="/dev/vda2"))
    with board_site(machine, tmp_path) as site:
        give_claim(disks.find(card), site.claim())
        (root, _) = open_medium(card).exts()
        root.write("/etc/autoglm-edge/agent.toml", SETTINGS.encode())
        yield site


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_card_becomes_a_device_with_its_data_on_a_partition_that_has_grown(site: BoardSite, tmp_path: Path) -> None:
    card = site.machine.disk
    releases = {v: make_model_bundle(tmp_path / v, version=v, seed=int(v), body=int(v)) for v in "12"}
    before = examine(card)
    assert (before.claim_state, before.problems) == ("waiting", ())
    boot = before.partitions[0]
    secret = _secret(card)
    site.switch_on()
    site.wait("enrolled with its claim", site.device)
    device = site.wait("connected as a device, with its certificate", site.online).device.name
    _confirmed(site, _deploy(site, device, releases["1"]))
    assert site.wait("it answers", lambda: site.served(INPUT, releases)) == "1"
    site.wait("telemetry of the inference", site.requests)
    order = _deploy(site, device, releases["2"])
    site.wait("the second release is on its way", lambda: _is_on_its_way(site, order), pause_s=0.02)
    site.machine.cut()
    site.switch_on()
    assert site.wait("it serves again", lambda: site.served(INPUT, releases), pause_s=1.0) in ("1", "2")
    _confirmed(site, order)
    assert site.wait("it answers by the second release", lambda: site.served(INPUT, releases)) == "2"
    site.machine.cut()

    images.play_back(card)
    after = examine(card)
    assert after.claim_state == "used"
    assert after.identity is not None
    assert after.identity.device.startswith(PREFIX)
    assert after.has_booted
    assert after.host_name.startswith("plant-a-")
    data = after.partitions[2]
    assert data.start_bytes + data.size_bytes == CARD_BYTES
    medium = open_medium(card)
    root_tree, data_tree = medium.exts()
    assert data_tree.size_bytes() > CARD_BYTES // 4, "the file system has grown with its partition"
    assert (root_tree.names("/var/lib/autoglm-edge"), data_tree.read("/slots.json") is None) == ((), False)
    assert after.bundles is not None
    assert (after.bundles.current, after.bundles.previous) == ("linear@2 (fp32)", "linear@1 (fp32)")
    with card.open("rb") as file:
        file.seek(boot.start_bytes)
        assert secret not in file.read(boot.size_bytes), "the claim's bytes are overwritten on FAT"
    assert after.claim is None


def _secret(card: Path) -> bytes:
    (tree,) = open_medium(card).fats()
    return read_claim(tree.read("/autoglm-edge/claim.json") or b"").secret.encode()


def _deploy(site: BoardSite, device: str, bundle: ModelBundle) -> Deployment:
    site.fleet.publish(bundle.directory)
    (order,) = site.fleet.deploy(
        BundleId(name=bundle.reference.name, version=bundle.reference.version), [device], probation=TERMS
    )
    return order


def _confirmed(site: BoardSite, order: Deployment) -> None:
    (ended,) = site.fleet.wait_for_deployments([order], 600)
    site.note(f"release {order.bundle.version} is {ended.phase}")
    assert ended.phase == "confirmed", ended


def _is_on_its_way(site: BoardSite, order: Deployment) -> bool | None:
    (now,) = site.fleet.refresh([order])
    return now.phase in ("fetching", "installing", "trying", "activating") or None
