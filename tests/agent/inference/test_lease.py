"""The accelerator that several processes share: one at a time, freed by whoever dies, not waited for without end."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from tests.fakes.fast_path_channels import Zeros
from tests.fakes.model_bundles import make_model_bundle
from tests.fakes.served_models import ServedModel

from autoglm_edge_agent.client import Client
from autoglm_edge_agent.inference.control import ServingOrder
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.lease import Lease
from autoglm_edge_agent.inference.model import Model
from autoglm_edge_agent.inference.sampling import Sampler
from autoglm_edge_protocol.bundle import read_manifest

HOLD = """
import sys, time
from pathlib import Path
from autoglm_edge_agent.inference.lease import Lease
with Lease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
COUNT = """
import sys
from pathlib import Path
from autoglm_edge_agent.inference.lease import Lease
lease, counter = Lease(Path(sys.argv[1])), Path(sys.argv[2])
for _ in range(100):
    with lease:
        counter.write_text(str(int(counter.read_text()) + 1))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accelerator.lock"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lease and does not give it back."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_two_processes_have_it_one_after_the_other(path: Path, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, str(path), str(counter)]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert counter.read_text() == "200"


def test_a_holder_that_is_killed_frees_it(path: Path, holder: subprocess.Popen[str]) -> None:
    lease = Lease(path, longest_wait_s=0.05)
    with pytest.raises(TimeoutError, match="another model has held the accelerator"), lease:
        pass
    holder.kill()
    holder.wait()
    with lease:
        pass
    lease.close()


class NoLocks(AbstractContextManager[None]):
    """A lease on a file system that has none."""

    def __enter__(self) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def __exit__(self, *_: object) -> None:
        pass


def _ask(path: Path, lease: AbstractContextManager[object]) -> list[object]:
    """Ask a model that needs the lease twice; return the shape of each answer, or its status and when to ask again."""
    manifest = read_manifest(make_model_bundle(path.parent / "bundle", width=4).directory)
    samples = socket.socketpair()
    model = Model(manifest, manifest.variants[0], Zeros(10), Sampler(samples[0]), lease=lease)

    async def ask() -> object:
        try:
            return (await asyncio.wait_for(model.run([np.zeros((1, 4), np.float32)]), 20))[0].shape
        except RequestError as error:
            return error.status, error.retry_after_s

    try:
        return [asyncio.run(ask()) for _ in range(2)]
    finally:
        model.engine.close()
        for each in samples:
            each.close()


def test_a_request_that_waits_too_long_for_it_may_be_asked_again(path: Path, holder: subprocess.Popen[str]) -> None:
    assert _ask(path, Lease(path, longest_wait_s=0.05)) == [(503, 1.0), (503, 1.0)]


def test_a_lease_that_cannot_be_had_at_all_is_an_error(path: Path) -> None:
    assert _ask(path, NoLocks()) == [(500, None), (500, None)]


def test_workers_wait_for_it(path: Path, tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    bundle = make_model_bundle(tmp_path / "bundle", width=4)
    with ServedModel(bundle.directory, bundle.reference, tmp_path, ServingOrder(lease_file=path)) as served:
        answered = threading.Event()

        def ask() -> None:
            with Client(served.fast_path) as client:
                client.infer({"x": np.zeros((1, 4), np.float32)})
            answered.set()

        thread = threading.Thread(target=ask)
        thread.start()
        assert not answered.wait(0.3)
        holder.kill()
        assert answered.wait(20)
        thread.join()
