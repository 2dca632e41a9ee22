"""A service manager's side of sd_notify: a real socket whose messages are read as they come and kept."""

from __future__ import annotations

import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType

_END = b"end of the test"


class Manager:
    def __init__(self) -> None:
        # pytest's folders are too deep for the 107 bytes of a Unix socket's path
        self._folder = tempfile.TemporaryDirectory(prefix="notify-")
        self.address = str(Path(self._folder.name) / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self.heard: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Manager:
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(_END, self.address)
        self._reader.join()
        self._socket.close()
        self._folder.cleanup()

    def feeds(self) -> int:
        return self.heard.count("WATCHDOG=1")

    def _read(self) -> None:
        while (message := self._socket.recv(4096)) != _END:
            self.heard.append(message.decode())
