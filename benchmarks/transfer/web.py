"""The peer of a pull over MQTT: nginx on this machine, and urllib3 in a process of its own.

python -m benchmarks.transfer.web URL FILE SHA256     fetches, writes, checks and syncs a file; prints seconds
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import urllib3
from tests.fakes.agents import wait_until
from tests.fakes.ports import free_port

_PIECE_BYTES = 1 << 20


@contextlib.contextmanager
def nginx(directory: Path, root: Path) -> Iterator[str]:
    """Serve a folder on the loopback interface; gives the address. Raises FileNotFoundError without nginx."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise FileNotFoundError("nginx is not installed: sudo apt install nginx-light")
    directory.mkdir(parents=True, exist_ok=True)
    port, configuration = free_port(), directory / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    configuration.write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {directory}/nginx.pid;\nerror_log {directory}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
    )
    process = subprocess.Popen([program, "-c", str(configuration), "-p", str(directory)], stderr=subprocess.DEVNULL)
    try:
        pool = urllib3.PoolManager(retries=False)

        def answers() -> bool:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                return pool.request("GET", f"http://127.0.0.1:{port}/").status > 0
            return False

        wait_until(answers, 10, "nginx does not answer")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def fetch(url: str, path: Path, sha256: str) -> float:
    """Fetch a file as a careful client does: piece by piece to the disk, hashed on the way, synced. Returns seconds."""
    begun, digest = time.monotonic(), hashlib.sha256()
    response = urllib3.PoolManager().request("GET", url, preload_content=False)
    with path.open("wb") as file:
        while piece := response.read(_PIECE_BYTES):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    assert digest.hexdigest() == sha256
    return time.monotonic() - begun


def read(url: str) -> float:
    """Fetch a file and throw it away. Returns seconds."""
    begun = time.monotonic()
    response = urllib3.PoolManager().request("GET", url, preload_content=False)
    while response.read(_PIECE_BYTES):
        pass
    return time.monotonic() - begun


if __name__ == "__main__":
    address, target, expected = sys.argv[1:]
    fetch(address, Path(target), expected)  # warm
    print(fetch(address, Path(target), expected), read(address))
