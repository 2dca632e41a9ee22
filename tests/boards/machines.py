"""A whole emulated board: qemu runs a kernel and a disk, with this machine's loopback at 10.0.2.2."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.boards.kernels import Kernel
from tests.fakes.ports import free_port

HOST = "10.0.2.2"
"""What the loopback of this machine is called inside."""

PROCESSOR = "cortex-a72"


@dataclass
class Machine:
    """`qemu-system-aarch64 -M virt` with the processor of a Pi 4.

    What the guest has written to its disk is in the file, or in the page cache of this machine, at once: a killed qemu
    is a board that loses power with a card that keeps what it has acknowledged. What the guest has not yet written is
    lost.
    """

    kernel: Kernel
    disk: Path
    log: Path
    """The serial console, all boots one after another."""
    root: str = "/dev/vda"
    """Where the guest's root is."""
    guest_port: int = 8000
    port: int = field(default_factory=free_port)
    """Of this machine's loopback, for the guest's `guest_port`."""
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Switch the power on; returns when that was, on the monotonic clock."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        console = f"console=ttyAMA0 root={self.root} systemd.show_status=0 quiet"
        self._process = subprocess.Popen(
            [
                "qemu-system-aarch64",
                *("-M", "virt", "-cpu", PROCESSOR, "-smp", "2", "-m", "1024", "-nodefaults", "-display", "none"),
                *("-kernel", str(self.kernel.image), "-initrd", str(self.kernel.initrd), "-append", console),
                *("-chardev", f"file,id=log,path={self.log},append=on", "-serial", "chardev:log"),
                *("-drive", f"file={self.disk},format=raw,if=none,id=disk,cache=writeback"),
                *("-device", "virtio-blk-pci,drive=disk"),
                *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:{self.guest_port}"),
                *("-device", "virtio-net-pci,netdev=net,romfile="),
                "-no-reboot",
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

    def console(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""
