"""The servers that are compared: ours, and MLServer in an environment of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
START_S = 120.0


@dataclass(frozen=True)
class Ours:
    """A running `autoglm-edge-agent serve`."""

    process: subprocess.Popen[str]
    socket: Path
    fast: Path
    port: int


@contextlib.contextmanager
def ours(bundle: Path, folder: Path, *options: str) -> Iterator[Ours]:
    """Serve a bundle until the block ends."""
    path = folder / "inference.sock"
    command = [str(Path(sys.executable).parent / "autoglm-edge-agent"), "serve", str(bundle)]
    command += ["--socket", str(path), "--http", "127.0.0.1:0", "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the agent does not serve")
        port = next(e for e in json.loads(line)["endpoints"] if e.startswith("http")).rpartition(":")[2]
        yield Ours(process, path, path.with_suffix(".fast"), int(port))
    finally:
        process.terminate()
        process.wait()


def environment(cache: Path) -> Path:
    """Return the interpreter of MLServer's environment, made when first asked for. Raises CalledProcessError."""
    folder = cache / "environments" / "mlserver"
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        print("making the environment of MLServer ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(HERE / "requirements.txt")], check=True)
        (folder / ".ready").touch()
    return python


@contextlib.contextmanager
def mlserver(model: Path, folder: Path, cache: Path, workers: int) -> Iterator[int]:
    """Serve the same file with MLServer; gives the port of its REST interface. Raises CalledProcessError, OSError."""
    python = environment(cache)
    ports = free_ports(3)
    settings = {"debug": False, "parallel_workers": workers, "host": "127.0.0.1", "http_port": ports[0]}
    settings |= {"grpc_port": ports[1], "metrics_port": ports[2]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    described = {"name": "model", "implementation": "mlserver_runtime.OnnxModel", "parameters": {"uri": str(model)}}
    (folder / "model-settings.json").write_text(json.dumps(described))
    (folder / "mlserver_runtime.py").write_text((HERE / "mlserver_runtime.py").read_text())
    log = (folder / "log").open("w")
    command = [str(python.parent / "mlserver"), "start", str(folder)]
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environ)
    try:
        _wait(process, ports[0], folder / "log")
        yield ports[0]
    finally:
        process.terminate()
        process.wait()
        log.close()


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v2/models/model/ready")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise OSError(f"MLServer does not serve: {log.read_text()[-2000:]}")
