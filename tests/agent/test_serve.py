"""`autoglm-edge-agent serve`: a bundle served without a fleet, as a developer on the board does it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.fakes.agents import wait_until
from tests.fakes.model_bundles import ModelBundle, make_model_bundle
from tests.fakes.processes import is_alive

COMMAND = [str(Path(sys.executable).with_name("autoglm-edge-agent")), "serve"]
GRPC = importlib.util.find_spec("grpc") is not None
X = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return make_model_bundle(tmp_path_factory.mktemp("bundle") / "linear", width=4)


@contextlib.contextmanager
def _served(bundle: ModelBundle, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [*COMMAND, str(bundle.directory), "--http", "127.0.0.1:0", "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def _address(told: dict[str, Any], scheme: str) -> str:
    return next(str(each) for each in told["endpoints"] if each.startswith(f"{scheme}://"))


def _infer(told: dict[str, Any]) -> list[float]:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": X.ravel().tolist()}
    request = urllib.request.Request(
        f"{_address(told, 'http')}/v2/models/linear/infer", json.dumps({"inputs": [tensor]}).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return list(json.loads(response.read())["outputs"][0]["data"])


def test_it_says_where_it_serves_answers_and_ends_at_ctrl_c(bundle: ModelBundle) -> None:
    with tempfile.TemporaryDirectory() as folder, _served(bundle, "--socket", f"{folder}/i.sock") as (process, told):
        assert told["bundle"] == f"linear@{bundle.reference.version}"
        assert told["variant"] == "fp32" and f"unix:{folder}/i.sock" in told["endpoints"]
        np.testing.assert_allclose(_infer(told), bundle.expected(X)[0], rtol=1e-5)
        workers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert not list(filter(is_alive, workers))


def test_it_measures_once_how_the_bundle_runs_best(
    bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    heard = []
    for _ in range(2):
        with _served(bundle, "--measure") as (process, told):
            np.testing.assert_allclose(_infer(told), bundle.expected(X)[0], rtol=1e-5)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0 and process.stderr is not None
            heard.append(process.stderr.read().splitlines())
    assert any(line.startswith("fp32: onnxruntime, ") and "ms a run" in line for line in heard[0])
    assert heard[1] == [], "what is known is not measured again"
    assert list((tmp_path / "autoglm-edge-agent" / "probes").glob("*.json"))


def test_a_stand_in_takes_over_when_the_worker_dies(bundle: ModelBundle) -> None:
    with _served(bundle, "--standby") as (process, told):
        agent = psutil.Process(process.pid)
        # Nothing tells when the stand-in has loaded the model; one that has not is no help, and another is started.
        for patience_s in (1, 3, 9, 27):
            workers = wait_until(lambda: agent.children() if len(agent.children()) == 2 else None, 30, "no stand-in")
            first, stand_in = sorted(workers, key=lambda each: each.create_time())
            time.sleep(patience_s)
            os.kill(first.pid, signal.SIGKILL)
            wait_until(lambda: _answers_rightly(told, bundle), 30, "nobody took over")
            if stand_in.is_running():
                return
        pytest.fail("the stand-in never served")


def _answers_rightly(told: dict[str, Any], bundle: ModelBundle) -> bool:
    try:
        return bool(np.allclose(_infer(told), bundle.expected(X)[0], rtol=1e-5))
    except (OSError, urllib.error.URLError):  # the connection that the dead one had accepted
        return False


@pytest.mark.skipif(not GRPC, reason="the extra grpc is not installed in this environment")
def test_grpc_beside_it(bundle: ModelBundle) -> None:
    client = pytest.importorskip("tritonclient.grpc")
    with _served(bundle, "--grpc", "127.0.0.1:0") as (_, told):
        asked = client.InferInput("x", [1, 4], "FP32")
        asked.set_data_from_numpy(X)
        connection = client.InferenceServerClient(_address(told, "grpc").removeprefix("grpc://"))
        found = connection.infer("linear", [asked]).as_numpy("y")
        connection.close()
        np.testing.assert_allclose(found, bundle.expected(X), rtol=1e-5)


def test_what_cannot_be_served_is_one_line(bundle: ModelBundle, tmp_path: Path) -> None:
    damaged = make_model_bundle(tmp_path / "damaged", width=4)
    model = next(damaged.directory.rglob("model.onnx"))
    model.write_bytes(b"\0" * model.stat().st_size)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = [
            ((str(damaged.directory),), "model.onnx"),
            ((str(tmp_path / "nothing"),), "nothing"),
            ((str(bundle.directory), "--http", f"127.0.0.1:{port}"), port),
            ((str(bundle.directory), "--http", "0.0.0.0:8000"), "token_file"),
            ((str(bundle.directory), "--grpc", "nowhere"), "nowhere"),
            ((str(bundle.directory), "--variant", "int3"), "int3"),
        ]
        for arguments, named in cases:
            more = () if "--http" in arguments else ("--http", "127.0.0.1:0")
            done = subprocess.run(
                [*COMMAND, *arguments, *more], capture_output=True, text=True, timeout=60, check=False
            )
            lines = done.stderr.strip().splitlines()
            assert done.returncode == 1 and len(lines) == 1 and named in lines[0], (arguments, done.stderr)
            assert lines[0].startswith("autoglm-edge-agent: ")
