"""The files of an image that are in no package. Pure."""

from __future__ import annotations

from autoglm_edge_firmware.customise.payload import (
    FOLDER_OF_ROOT,
    UNIT,
    File,
    Payload,
    board_file,
    contents,
    unit,
)
from autoglm_edge_firmware.customise.plan import CLAIM_OF_BOOT
from autoglm_edge_firmware.image.boards import Firmware
from autoglm_edge_firmware.image.layout import Identifiers
from autoglm_edge_firmware.image.plan import SUITE, ImagePlan
from autoglm_edge_firmware.settings.claim import for_board
from autoglm_edge_firmware.settings.wifi import for_wpa_supplicant

DATA_MOUNT = "/var/lib/autoglm-edge"
BOOT_MOUNT = "/boot/firmware"
_SYSTEM = "/etc/systemd/system"
_KERNEL_HOOKS = ("/etc/kernel/postinst.d/zz-autoglm-edge", "/etc/initramfs/post-update.d/zz-autoglm-edge")
_DEBIAN = "http://deb.debian.org/"
"""Debian's own address, for the board's upgrades: apt verifies what it gets from there."""

Link = tuple[str, str]
"""A symbolic link and what it says."""


def before_packages(plan: ImagePlan, known: Identifiers) -> tuple[File, ...]:
    """Return what must be there while packages are configured."""
    found = [
        # The type of the root is said, as there is no root to look at: with it goes what checks file systems.
        File("/etc/initramfs-tools/conf.d/autoglm-edge", b"MODULES=list\nCOMPRESS=zstd\nFSTYPE=ext4\n"),
        File("/etc/initramfs-tools/modules", "".join(f"{name}\n" for name in plan.board.modules).encode()),
        # Services are not started while an image is made.
        File("/usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 101\n", 0o755),
        File("/etc/fstab", fstab(known).encode()),
    ]
    if plan.board.firmware is Firmware.RASPBERRY_PI:
        text = f'ROOTPART=PARTUUID={known.partition(2)}\nCONSOLES="{plan.board.consoles}"\nKERNEL_ARCH="arm64"\n'
        found.append(File("/etc/default/raspi-firmware", text.encode()))
    else:
        found += [File(path, board_file("kernel-to-boot.sh"), 0o755) for path in _KERNEL_HOOKS]
    return tuple(found)


def fstab(known: Identifiers) -> str:
    """Return `/etc/fstab`. Who is not root reads nothing of the boot partition, where a claim may wait."""
    rows = [
        (known.partition(2), "/", "ext4", "defaults,noatime,errors=remount-ro", 1),
        (known.partition(1), BOOT_MOUNT, "vfat", "defaults,noatime,umask=0077", 2),
        (known.partition(3), DATA_MOUNT, "ext4", "defaults,noatime,nosuid,nodev,x-systemd.growfs", 2),
    ]
    return "".join(f"PARTUUID={part}  {at}  {kind}  {options}  0  {order}\n" for part, at, kind, options, order in rows)


def of_root(plan: ImagePlan, known: Identifiers) -> tuple[File, ...]:
    """Return what is put into the root once its packages are there."""
    found = [
        File("/etc/hostname", b"localhost\n"),
        File("/etc/hosts", b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
        # Every board makes its own. Empty and not missing: systemd would else enable every unit that there is.
        File("/etc/machine-id", b"", 0o444),
        File("/etc/systemd/network/20-wired.network", _network("en* eth*", 100)),
        # Modems and telephones that are networks of their own.
        File("/etc/systemd/network/22-usb.network", _network("usb*", 300)),
        File("/etc/systemd/network/25-wireless.network", _network("wl*", 600)),
        File("/etc/apt/sources.list.d/debian.sources", _sources(plan).encode()),
        File("/usr/local/lib/autoglm-edge/grow-data", board_file("grow-data.sh"), 0o755),
        File(f"{_SYSTEM}/autoglm-edge-grow-data.service", _grow_unit(known)),
    ]
    if plan.payload.name_prefix:
        found += contents(Payload(name_prefix=plan.payload.name_prefix), FOLDER_OF_ROOT)
        found.append(File(f"{_SYSTEM}/{UNIT}", unit(FOLDER_OF_ROOT)))
    if plan.payload.wifi:
        text = for_wpa_supplicant(plan.payload.wifi)
        found.append(File("/etc/wpa_supplicant/wpa_supplicant-wlan0.conf", text.encode(), 0o600))
    if plan.ssh_key:
        found.append(File("/root/.ssh/authorized_keys", f"{plan.ssh_key.strip()}\n".encode(), 0o600))
        found.append(File(f"{_SYSTEM}/ssh.service.d/10-host-keys.conf", _HOST_KEYS))
    return tuple(found)


# The package makes the keys when it is installed, and so the same ones for every card: these are removed.
_HOST_KEYS = b"[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n"


def links(plan: ImagePlan) -> tuple[Link, ...]:
    """Return the links of the root: units that are started."""
    lib = "/usr/lib/systemd/system"
    wanted = f"{_SYSTEM}/multi-user.target.wants"
    found = [
        ("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
        (f"{wanted}/systemd-networkd.service", f"{lib}/systemd-networkd.service"),
        (f"{_SYSTEM}/sockets.target.wants/systemd-networkd.socket", f"{lib}/systemd-networkd.socket"),
        (
            f"{_SYSTEM}/local-fs.target.wants/autoglm-edge-grow-data.service",
            f"{_SYSTEM}/autoglm-edge-grow-data.service",
        ),
    ]
    if plan.payload.name_prefix:
        found.append((f"{wanted}/{UNIT}", f"{_SYSTEM}/{UNIT}"))
    if plan.payload.wifi:
        found.append((f"{wanted}/wpa_supplicant@wlan0.service", f"{lib}/wpa_supplicant@.service"))
    return tuple(found)


def of_boot(plan: ImagePlan, known: Identifiers) -> tuple[File, ...]:
    """Return what is put onto the boot partition beside what packages have put there."""
    found = []
    if plan.board.firmware is Firmware.EFI:
        words = f"root=PARTUUID={known.partition(2)} rootwait fsck.repair=yes {plan.board.command_line}".strip()
        entry = f"title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions {words}\n"
        menu = f"default debian\nlabel debian\n  linux /vmlinuz\n  initrd /initrd.img\n  append {words}\n"
        found += [
            File("/loader/loader.conf", b"default debian.conf\ntimeout 0\n"),
            File("/loader/entries/debian.conf", entry.encode()),
            # What U-Boot looks for. It takes the device tree that it was built with.
            File("/extlinux/extlinux.conf", menu.encode()),
        ]
    if plan.payload.claim:
        found.append(File(CLAIM_OF_BOOT, for_board(plan.payload.claim, plan.payload.name_prefix), 0o600))
    return tuple(found)


def _network(names: str, metric: int) -> bytes:
    metrics = f"\n[DHCPv4]\nRouteMetric={metric}\n\n[IPv6AcceptRA]\nRouteMetric={metric}\n"
    return f"[Match]\nName={names}\n\n[Network]\nDHCP=yes\nMulticastDNS=yes\n{metrics}".encode()


def _sources(plan: ImagePlan) -> str:
    parts = " ".join(plan.board.components)
    signed = "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    places = (("debian", f"{SUITE} {SUITE}-updates"), ("debian-security", f"{SUITE}-security"))
    return "\n".join(
        f"Types: deb\nURIs: {_DEBIAN}{path}\nSuites: {suites}\nComponents: {parts}\n{signed}" for path, suites in places
    )


def _grow_unit(known: Identifiers) -> bytes:
    return board_file("autoglm-edge-grow-data.service").replace(
        b"@DATA@", known.partition(3).replace("-", r"\x2d").encode()
    )
