"""What image is to be made, decided and printable before anything is done. Pure, but for looking at what is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from autoglm_edge_firmware.customise.payload import Payload
from autoglm_edge_firmware.errors import SettingRefused
from autoglm_edge_firmware.image.boards import Board
from autoglm_edge_firmware.image.layout import identifiers

SUITE = "bookworm"
BASE_PACKAGES = (
    "apt",
    "ca-certificates",
    "dbus",
    "e2fsprogs",
    "fdisk",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "libstdc++6",
    "netbase",
    "passwd",
    "python3",
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
    "zstd",
)


@dataclass(frozen=True)
class ImagePlan:
    """One image. `payload` has the agent's package, and may have a claim, a network and a name."""

    board: Board
    output: Path
    payload: Payload
    epoch: int
    """The time of every file that is newer, in seconds since 1970; the same inputs and epoch give the same bytes."""
    sources: Path = Path("/etc/apt/sources.list.d/debian.sources")
    """Where apt of this machine gets Debian from. Of these addresses none is in the image."""
    boot_mib: int = 256
    root_mib: int | None = None
    """None: by what is in it."""
    data_mib: int = 64
    ssh_key: str | None = None
    more_packages: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        package = self.payload.package
        if package is None:
            raise SettingRefused("an image needs the agent's package: make it with `autoglm-edge flash package`")
        if package.architecture != self.board.architecture:
            raise SettingRefused(
                f"{self.board.name} is for {self.board.architecture}, but the package is for {package.architecture}"
            )
        if self.ssh_key is not None and "PRIVATE KEY" in self.ssh_key:
            raise SettingRefused("that is a private key: give the public one, whose file ends in .pub")

    @property
    def packages(self) -> tuple[str, ...]:
        """Every Debian package that is asked for."""
        shell = ("openssh-server",) if self.ssh_key else ()
        return tuple(sorted({*BASE_PACKAGES, *self.board.packages, *shell, *self.more_packages}))

    def lines(self) -> tuple[str, ...]:
        """Return the plan for people: no secret is in it."""
        known = identifiers(self.board.name)
        root = "by its content" if self.root_mib is None else f"{self.root_mib} MiB"
        payload = self.payload
        assert payload.package is not None
        told = [
            ("board", f"{self.board.name}: {self.board.title}"),
            ("image", str(self.output)),
            ("system", f"Debian {SUITE}, {self.board.architecture}, from {self.sources}"),
            ("packages", " ".join(self.packages)),
            ("agent", f"{payload.package.version} ({len(payload.package.data) / 1e6:.0f} MB)"),
            ("claim", f"{payload.claim.claim_id} of {payload.claim.fleet}" if payload.claim else "none: written later"),
            ("network", f"{payload.wifi.ssid} and cable" if payload.wifi else "cable"),
            ("names", f"{payload.name_prefix}-SERIAL" if payload.name_prefix else "localhost"),
            ("boot", f"{self.boot_mib} MiB FAT32, {known.partition(1)}"),
            ("root", f"{root}, ext4, {known.partition(2)}"),
            ("data", f"{self.data_mib} MiB ext4, {known.partition(3)}, grows to the card's end"),
            ("time", str(self.epoch)),
        ]
        return tuple(f"{name:9} {value}" for name, value in told)
