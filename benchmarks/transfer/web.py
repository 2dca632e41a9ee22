"""The peer of a pull over MQTT: nginx on this machine, and urllib3 in a process of its own.

python -m benchmarks.transfer.web URL FILE SHA256     fetches with and without care; prints wall and processor seconds
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import urllib3
from tests.fakes.agents import wait_until
from tests.fakes.ports import free_port

_PIECE_BYTES = 1 << 20


def _program() -> str:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise FileNotFoundError("nginx is not installed: sudo apt install nginx-light")
    return program


@contextlib.contextmanager
def nginx(directory: Path, root: Path) -> Iterator[str]:
    """Serve a folder on the loopback interface; gives the address. Raises FileNotFoundError without nginx."""
    program = _program()
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


def version() -> str:
    """Return which nginx this is."""
    said = subprocess.run([_program(), "-v"], check=True, capture_output=True, text=True).stderr
    return said.partition("/")[2].split()[0]


def fetch(url: str, path: Path, sha256: str) -> None:
    """Fetch a file as a careful client does: piece by piece to the disk, hashed on the way, synced."""
    digest = hashlib.sha256()
    response = urllib3.PoolManager().request("GET", url, preload_content=False)
    with path.open("wb") as file:
        while piece := response.read(_PIECE_BYTES):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    assert digest.hexdigest() == sha256


def read(url: str) -> None:
    """Fetch a file and throw it away."""
    response = urllib3.PoolManager().request("GET", url, preload_content=False)
    while response.read(_PIECE_BYTES):
        pass


def timed(work: Callable[[], None]) -> str:
    """Return how long something takes, and how long the processor works for it in this process."""
    begun, cpu = time.monotonic(), time.process_time()
    work()
    return f"{time.monotonic() - begun} {time.process_time() - cpu}"


if __name__ == "__main__":
    address, target, expected = sys.argv[1:]
    fetch(address, Path(target), expected)  # warm
    print(timed(lambda: fetch(address, Path(target), expected)), timed(lambda: read(address)))
