"""The client library of the fast path against real workers, which are replaced and killed meanwhile."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from tests.fakes.descriptors import open_files
from tests.fakes.identity_bundles import edges, make_identity_bundle
from tests.fakes.model_bundles import make_bundle_of, make_model_bundle
from tests.fakes.onnx_writer import ELEMENTS, linear_model
from tests.fakes.served_models import ServedModel

from autoglm_edge_agent.client import Client, InferenceRefused
from autoglm_edge_protocol.manifest import TensorSpec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fast path is Linux's")
NUMBERS = tuple(name for name in ELEMENTS if name != "BYTES")
Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    directory = tmp_path_factory.mktemp("served")
    reference = make_identity_bundle(directory / "bundle", text=False)
    with ServedModel(directory / "bundle", reference, directory) as served:
        yield served


@pytest.fixture
def client(served: ServedModel) -> Iterator[Client]:
    with Client(served.fast_path) as client:
        yield client


def _inputs(**given: Array) -> dict[str, Array]:
    return {name.lower(): np.empty((0, 0), edges(name).dtype) for name in NUMBERS} | given


def test_the_client_knows_the_model(client: Client) -> None:
    assert (client.model, client.version, client.variant) == ("identity", "1.0.0", "fp32")
    assert [(info.name, info.datatype, info.shape) for info in client.inputs] == [
        (name.lower(), name, (-1, -1)) for name in NUMBERS
    ]
    assert [info.name for info in client.outputs] == [f"{name.lower()}_out" for name in NUMBERS]


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype(client: Client, datatype: str) -> None:
    name, array = datatype.lower(), edges(datatype)
    found = client.infer(_inputs(**{name: array}))[f"{name}_out"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_free_dimensions_change_from_request_to_request(client: Client) -> None:
    random = np.random.default_rng(1)
    for shape in ((1, 1), (7, 3), (0, 4), (300, 200), (1, 1)):
        array = random.standard_normal(shape, dtype=np.float32)
        found = client.infer(_inputs(fp32=array))["fp32_out"]
        assert found.shape == shape
        np.testing.assert_array_equal(found, array)


def test_a_slot_is_written_and_read_in_place(client: Client) -> None:
    empty = {name.lower(): (0, 0) for name in NUMBERS}
    with pytest.raises(ValueError, match="leaves dimensions free"):
        client.slot({"fp32": (2, 3)})
    slot = client.slot({**empty, "fp32": (2, 3)})
    other = client.slot({**empty, "fp32": (2, 3)})
    place, kept, first = slot.inputs["fp32"], other.inputs["fp32"], np.empty(0)
    kept[...] = -1
    place[...] = 0
    slot.run()
    first = slot.outputs["fp32_out"]
    for number in range(1, 5):
        place[...] = number
        slot.run()
        assert (first == number).all()  # the same memory each time
    other.run()
    assert (other.outputs["fp32_out"] == -1).all() and (first == 4).all()
    other.close()
    with pytest.raises(ValueError, match="closed"):
        other.run()
    slot.run()


def test_a_mistake_is_told_before_anything_is_sent(client: Client) -> None:
    with pytest.raises(ValueError, match="no input 'z'"):
        client.infer(_inputs(z=np.zeros((1, 1))))
    with pytest.raises(ValueError, match="'fp64' is missing"):
        client.infer({name: array for name, array in _inputs().items() if name != "fp64"})
    with pytest.raises(ValueError, match="no input 'z'"):
        client.slot({"z": (1, 1)})
    with pytest.raises(ValueError, match="1 is the most urgent"):
        client.infer(_inputs(), priority=-1)


def test_a_shape_that_does_not_fit_is_refused_and_the_client_goes_on(client: Client) -> None:
    with pytest.raises(InferenceRefused, match="does not fit") as caught:
        client.infer(_inputs(fp32=np.zeros(3, np.float32)))
    assert caught.value.status == 400
    assert client.infer(_inputs(fp32=np.ones((1, 1), np.float32)))["fp32_out"].tolist() == [[1.0]]


def test_outputs_larger_than_estimated(tmp_path: Path) -> None:
    """The memory is enlarged, and arrays of the inputs that the caller holds are still those that are read."""
    weights, bias = np.arange(10_000, dtype=np.float32).reshape(2, 5000), np.zeros(5000, np.float32)
    x, y = (TensorSpec(name=name, datatype="FP32", shape=(-1, -1)) for name in "xy")
    reference = make_bundle_of(tmp_path / "bundle", "wide", linear_model(weights, bias), (x,), (y,))
    with ServedModel(tmp_path / "bundle", reference, tmp_path) as served, Client(served.fast_path) as client:
        slot = client.slot({"x": (1, 2)})
        estimated = slot.output_bytes
        place = slot.inputs["x"]
        place[...] = [[1, 2]]
        slot.run()
        assert estimated < 20_000 == slot.output_bytes
        np.testing.assert_array_equal(slot.outputs["y"], place @ weights)
        place[...] = [[3, 4]]
        slot.run()
        np.testing.assert_array_equal(slot.outputs["y"], np.array([[3, 4]], np.float32) @ weights)


def test_nobody_serves(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="nobody serves"):
        Client(tmp_path / "nowhere", retry_s=0.05)


def test_text_is_for_http(tmp_path: Path) -> None:
    reference = make_identity_bundle(tmp_path / "bundle")
    with (
        ServedModel(tmp_path / "bundle", reference, tmp_path) as served,
        pytest.raises(InferenceRefused, match="use HTTP"),
    ):
        Client(served.fast_path)


def test_closing_gives_everything_back(served: ServedModel) -> None:
    before = open_files()
    worker = psutil.Process(served.worker_pid)
    with Client(served.fast_path) as client:
        for rows in range(1, 20):
            client.infer(_inputs(fp32=np.ones((rows, 3), np.float32)))
        several = worker.num_fds()
        slots = [client.slot({name.lower(): (1, 1) for name in NUMBERS}) for _ in range(5)]
        for slot in slots:
            slot.run()
        assert worker.num_fds() == several + 5
    assert not open_files() - before
    deadline = time.monotonic() + 20
    while worker.num_fds() >= several:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_clients_at_once(served: ServedModel) -> None:
    def ask(number: int) -> int:
        with Client(served.fast_path) as client:
            array = np.full((3, 5), number, np.int64)
            return sum((client.infer(_inputs(int64=array))["int64_out"] == number).all() for _ in range(200))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, (1, 2))) == [200, 200]


@pytest.mark.slow
def test_no_request_is_lost_while_workers_are_replaced_and_killed(served: ServedModel) -> None:
    stop = threading.Event()

    def ask(number: int) -> int:
        asked = 0
        with Client(served.fast_path) as client:
            slot = client.slot({**{name.lower(): (0, 0) for name in NUMBERS}, "int32": (2, 2)})
            while not stop.is_set():
                slot.inputs["int32"][...] = asked
                slot.run(priority=1 + asked % 3)
                assert (slot.outputs["int32_out"] == asked).all()
                asked += 1
        return asked

    pids = {served.worker_pid}
    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(ask, number) for number in range(2)]
        try:
            for _ in range(2):
                served.restart()
                pids.add(served.worker_pid)
                old = served.kill_worker()
                while served.worker_pid == old:
                    time.sleep(0.01)
                pids.add(served.worker_pid)
        finally:
            stop.set()
        assert all(each.result(60) > 0 for each in clients)
    assert len(pids) == 5


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    directory = tmp_path_factory.mktemp("slow")
    bundle = make_model_bundle(directory / "bundle", width=96, repeat=400)
    with ServedModel(bundle.directory, bundle.reference, directory) as served:
        yield served


def test_a_busy_model_says_so(slow: ServedModel) -> None:
    few, many = np.zeros((1, 96), np.float32), np.zeros((3000, 96), np.float32)
    with Client(slow.fast_path) as first, Client(slow.fast_path) as second, ThreadPoolExecutor(1) as pool:
        second.infer({"x": few})
        long = pool.submit(first.infer, {"x": many})
        slow.wait_until_it_computes()
        statuses = []
        while not long.done():
            try:
                second.infer({"x": few}, timeout_s=0.01)
            except InferenceRefused as refused:
                statuses.append(refused.status)
                assert refused.status == 504 or (refused.retry_after_s or 0) > 0
        assert set(statuses) <= {503, 504} and statuses
        assert long.result()["y"].shape == (3000, 96)
        with pytest.raises(InferenceRefused, match="too many requests wait") as caught:
            second.infer({"x": few}, timeout_s=0.001)
        assert caught.value.status == 503


def test_a_request_whose_worker_is_killed_is_answered_by_the_next(slow: ServedModel) -> None:
    with Client(slow.fast_path) as client, ThreadPoolExecutor(1) as pool:
        x = np.random.default_rng(2).standard_normal((8000, 96), dtype=np.float32)
        asked = pool.submit(client.infer, {"x": x})
        slow.wait_until_it_computes()
        old = slow.kill_worker()
        assert not asked.done()
        assert asked.result(60)["y"].shape == (8000, 96)
        assert slow.worker_pid != old
        with Client(slow.fast_path, retry_s=0) as impatient:
            asked = pool.submit(impatient.infer, {"x": x})
            slow.wait_until_it_computes()
            slow.kill_worker()
            with pytest.raises(ConnectionError, match="before it answered"):
                asked.result(60)


def test_a_client_that_waits_no_longer(slow: ServedModel) -> None:
    with Client(slow.fast_path) as client:
        client.infer({"x": np.zeros((1, 96), np.float32)})
    with Client(slow.fast_path, timeout_s=0.05) as client, pytest.raises(TimeoutError):
        client.infer({"x": np.zeros((3000, 96), np.float32)})
    with Client(slow.fast_path) as client:
        assert client.infer({"x": np.zeros((1, 96), np.float32)})["y"].shape == (1, 96)


def test_a_slot_for_another_model_is_refused(tmp_path: Path) -> None:
    """Two models one after the other on one socket, as when a bundle with other tensors is activated."""
    first, second = make_model_bundle(tmp_path / "1", width=4), make_model_bundle(tmp_path / "2", width=5)
    with ServedModel(first.directory, first.reference, tmp_path) as served, Client(served.fast_path) as client:
        slot = client.slot({"x": (1, 4)})
        slot.run()
        served.switch(second.directory, second.reference)
        with pytest.raises(InferenceRefused, match="take a new slot"):
            while True:  # the old worker may answer until it says goodbye
                slot.run()
        x = np.ones((1, 5), np.float32)
        np.testing.assert_allclose(client.infer({"x": x})["y"], second.expected(x), rtol=1e-5)


def test_the_socket_keeps_packets_apart(served: ServedModel) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream, pytest.raises(OSError, match="wrong type"):
        stream.connect(str(served.fast_path))
