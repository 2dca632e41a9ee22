"""Whole emulated boards: qemu runs a kernel and a disk, with this machine's loopback at 10.0.2.2."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests.boards.kernels import Kernel
from tests.fakes.ports import free_port

HOST = "10.0.2.2"
"""What the loopback of this machine is called inside."""

DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Before a command that must not go on when the tests are killed."""

DOOR = 9000
"""Port of the board where this machine asks what a program on the board would ask on loopback, port 8000."""

TRANSLATED = "mitigations=off nokaslr init_on_alloc=0 panic=-1"
"""What costs an emulated processor much and proves nothing on it: guards against a processor's own leaks, which empty
the emulator's table of translated addresses at every system call. A kernel that panics ends the machine."""

_HELPERS = ("autoglm-edge-devices.service", "dbus.service", "dbus.socket", "systemd-logind.service")
_DEVICES = (
    *("systemd-networkd.service", "systemd-networkd.socket", "systemd-udevd.service", "systemd-udev-trigger.service"),
    *("systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-binfmt.service"),
    *("kmod-static-nodes.service", "systemd-modules-load.service", "systemd-tmpfiles-setup-dev.service"),
    *(f"modprobe@{module}.service" for module in ("configfs", "dm_mod", "drm", "efi_pstore", "fuse", "loop")),
)
_MOUNTS = (
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "proc-sys-fs-binfmt_misc.automount"),
)
_HOUSEKEEPING = (
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-user-sessions.service"),
    *("systemd-journal-flush.service", "systemd-pstore.service", "systemd-random-seed.service"),
    *("systemd-sysctl.service", "systemd-sysusers.service", "systemd-tmpfiles-clean.timer", "getty.target"),
    *("systemd-pcrphase.service", "systemd-pcrphase-sysinit.service"),
)


def _without(*units: str) -> str:
    return " ".join(f"systemd.mask={unit}" for unit in units)


QUIET = _without(*_HELPERS)
"""Boots without those who log in, and without looking for accelerators."""
QUICK = f"static-network systemd.gpt_auto=0 {_without(*_HELPERS, *_DEVICES, *_MOUNTS, *_HOUSEKEEPING)}"
"""Boots in half the time: with what the agent needs, and without what looks for devices and networks, mounts what
nobody uses, or keeps the system's own books."""


@dataclass(frozen=True)
class Hardware:
    """A machine that qemu knows, as far as we have to tell them apart."""

    options: tuple[str, ...]
    console: str
    serial: tuple[str, ...]
    """Before the port that is the console."""
    disk: tuple[str, ...]
    """How the drive `disk` is attached."""
    root: str
    network: str
    tree: str | None = None
    """Debian's device tree; None: qemu makes one."""


VIRT = Hardware(
    ("-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "1024"),
    console="ttyAMA0",
    serial=(),
    disk=("if=none,id=disk", "-device", "virtio-blk-pci,drive=disk"),
    root="/dev/vda",
    network="virtio-net-pci,netdev=net,romfile=",
)
"""The processor of a Pi 4, and devices that only emulators have."""

RASPI3B = Hardware(
    ("-M", "raspi3b"),
    console="ttyS1,115200",
    serial=("-serial", "null"),
    disk=("if=sd",),
    root="/dev/mmcblk0",
    network="usb-net,netdev=net",
    tree="bcm2837-rpi-3-b.dtb",
)
"""A Pi 3 B: its processor, memory, card and USB, and the device tree that a real one is started with."""


@dataclass
class Machine:
    """A board that can be switched on, and off without a warning.

    What the guest has written to its disk is in the file, or in the page cache of this machine, at once: a killed qemu
    is a board that loses power with a card that keeps what it has acknowledged. What the guest has not yet written is
    lost.
    """

    kernel: Kernel
    disk: Path
    log: Path
    """The serial console, all boots one after another."""
    hardware: Hardware = VIRT
    arguments: str = ""
    """More of the kernel's command line."""
    guest_port: int = DOOR
    port: int = field(default_factory=free_port)
    """Of this machine's loopback, for the guest's `guest_port`."""
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Switch the power on; returns when that was, on the monotonic clock."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        board = self.hardware
        arguments = (
            f"console={board.console} root={board.root} rw systemd.show_status=0 quiet {TRANSLATED} {self.arguments}"
        )
        tree = () if board.tree is None else ("-dtb", str(self.kernel.folder / board.tree))
        drive, *attached = board.disk
        self._process = subprocess.Popen(
            [
                *DIES_WITH_US,
                *("qemu-system-aarch64", *board.options, "-nodefaults", "-display", "none", "-no-reboot"),
                *("-kernel", str(self.kernel.image), "-initrd", str(self.kernel.initrd), "-append", arguments, *tree),
                *("-chardev", f"file,id=log,path={self.log},append=on", *board.serial, "-serial", "chardev:log"),
                *("-drive", f"file={self.disk},format=raw,cache=writeback,{drive}", *attached),
                *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:{self.guest_port}"),
                *("-device", board.network),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.monotonic()

    def cut(self) -> None:
        """Take the power away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def is_on(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def used_s(self) -> float:
        """Processor time that the emulation has taken, which tells more than a clock where others work, too."""
        if self._process is None:
            return 0.0
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def console(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""
