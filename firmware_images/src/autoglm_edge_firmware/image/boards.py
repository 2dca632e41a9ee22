"""The boards that images are made for, as data: what they boot with, and what their first stage looks for."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from autoglm_edge_firmware.errors import SettingRefused


class Firmware(enum.StrEnum):
    """What starts the kernel."""

    RASPBERRY_PI = "raspberry-pi"
    """The files of raspi-firmware on a FAT partition of an MBR."""
    EFI = "efi"
    """UEFI, or U-Boot, which reads the same files or extlinux.conf."""


@dataclass(frozen=True)
class Board:
    """A board, or a class of them."""

    name: str
    title: str
    architecture: str
    firmware: Firmware
    packages: tuple[str, ...]
    components: tuple[str, ...]
    modules: tuple[str, ...]
    """Of the kernel, for the initramfs: what finds the card. Listed, as a build machine's own modules say nothing."""
    command_line: str = ""
    """After the root's: consoles."""
    consoles: str = ""
    """As raspi-firmware wants them."""
    efi_name: str = ""


_FILE_SYSTEMS = ("ext4", "crc32c_generic", "vfat", "nls_cp437", "nls_ascii")
# With these the same image boots in an emulator.
_VIRTUAL = ("virtio_blk", "virtio_pci", "virtio_mmio")
_USB = ("xhci_pci", "xhci_hcd", "usb_storage", "uas", "sd_mod")
_RASPBERRY = (
    "mmc_block",
    "sdhci",
    "sdhci_iproc",
    "bcm2835",
    "bcm2835_dma",
    "pcie_brcmstb",
    "reset_raspberrypi",
    "dwc2",
)
_GENERIC = ("mmc_block", "sdhci_pci", "sdhci_of_arasan", "sdhci_of_dwcmshc", "dw_mmc_rockchip", "nvme", "ahci")
_WIRELESS = ("wpasupplicant", "wireless-regdb")


def _raspberry(name: str, title: str) -> Board:
    return Board(
        name,
        title,
        "arm64",
        Firmware.RASPBERRY_PI,
        ("linux-image-arm64", "raspi-firmware", "firmware-brcm80211", *_WIRELESS),
        ("main", "non-free-firmware"),
        (*_FILE_SYSTEMS, *_RASPBERRY, *_USB, *_VIRTUAL),
        consoles="tty0 ttyS1,115200",
    )


BOARDS = {
    board.name: board
    for board in (
        _raspberry("rpi4", "Raspberry Pi 4 Model B, Compute Module 4"),
        _raspberry("rpi3", "Raspberry Pi 3 Model B and B+"),
        Board(
            "generic-arm64",
            "any 64-bit ARM board with UEFI or U-Boot, and virtual machines",
            "arm64",
            Firmware.EFI,
            ("linux-image-arm64", "systemd-boot-efi", *_WIRELESS),
            ("main",),
            (*_FILE_SYSTEMS, *_GENERIC, *_USB, *_VIRTUAL),
            efi_name="BOOTAA64.EFI",
        ),
        Board(
            "generic-amd64",
            "any 64-bit PC with UEFI, and virtual machines",
            "amd64",
            Firmware.EFI,
            ("linux-image-amd64", "systemd-boot-efi", *_WIRELESS),
            ("main",),
            (*_FILE_SYSTEMS, "mmc_block", "sdhci_pci", "sdhci_acpi", "nvme", "ahci", *_USB, *_VIRTUAL),
            "console=tty0 console=ttyS0,115200",
            efi_name="BOOTX64.EFI",
        ),
    )
}


def board(name: str) -> Board:
    """Return a board by its name.

    Raises:
        SettingRefused: there is no image for it.
    """
    if name not in BOARDS:
        raise SettingRefused(f"no image is made for {name!r}, only for {', '.join(BOARDS)}; others are customised")
    return BOARDS[name]
