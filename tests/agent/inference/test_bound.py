"""A model bound to the memory of a client: what it reads and writes in place, what not, and when it is let go."""

from __future__ import annotations

import mmap
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.fakes.model_bundles import make_bundle_of
from tests.fakes.onnx_writer import linear_model, selecting_model
from tests.fakes.served_models import ServedModel

from autoglm_edge_agent.client import Client
from autoglm_edge_agent.inference import samples
from autoglm_edge_agent.inference.backends import Bindable, Bound, Session, load_backend
from autoglm_edge_agent.inference.engine import Engine, Work
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.fast_layouts import Layout
from autoglm_edge_agent.inference.options import SessionOptions
from autoglm_edge_agent.inference.sampling import Sampler
from autoglm_edge_agent.inference.scheduler import Scheduler, Ticket
from autoglm_edge_agent.inference.statistics import Statistics
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]
WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)
BIAS = np.ones(3, np.float32)
X = TensorSpec(name="x", datatype="FP32", shape=(-1,))
WHICH = TensorSpec(name="which", datatype="BOOL", shape=(-1,))
CHOSEN = TensorSpec(name="y", datatype="FP32", shape=(-1,))
COUNT = TensorSpec(name="n", datatype="INT64", shape=(1,))


@pytest.fixture
def linear(tmp_path: Path) -> Session:
    path = tmp_path / "model.onnx"
    path.write_bytes(linear_model(WEIGHTS, BIAS))
    x, y = (TensorSpec(name=name, datatype="FP32", shape=(-1, -1)) for name in "xy")
    return load_backend("onnxruntime").open(path, [x], [y], SessionOptions())


def _bound(session: Session, inputs: Sequence[Array], outputs: list[Array]) -> Bound:
    assert isinstance(session, Bindable)
    bound = session.bind(inputs, outputs)
    assert bound is not None
    return bound


def test_it_reads_and_writes_in_place(linear: Session) -> None:
    x, y = np.zeros((1, 4), np.float32), np.zeros((1, 3), np.float32)
    bound = _bound(linear, [x], [y])
    for number in range(3):
        x[...] = number
        assert bound.run()[0] is y
        np.testing.assert_allclose(y, x @ WEIGHTS + BIAS)


@pytest.mark.parametrize("shape", [(2, 3), (1, 2), (3,)])
def test_memory_that_does_not_fit_is_left_alone(linear: Session, shape: tuple[int, ...]) -> None:
    x, y = np.ones((1, 4), np.float32), np.full(shape, -7, np.float32)
    bound = _bound(linear, [x], [y])
    for _ in range(2):
        (found,) = bound.run()
        np.testing.assert_allclose(found, x @ WEIGHTS + BIAS)
    assert (y == -7).all()


def test_inputs_that_the_model_does_not_take_are_an_error_as_without(linear: Session) -> None:
    x = np.ones((1, 5), np.float32)
    bound = _bound(linear, [x], [np.zeros((1, 3), np.float32)])
    for _ in range(2):
        with pytest.raises(ValueError, match="dimension"):
            bound.run()


def test_an_empty_tensor_has_no_place(linear: Session) -> None:
    assert isinstance(linear, Bindable)
    assert linear.bind([np.zeros((0, 4), np.float32)], [np.zeros((0, 3), np.float32)]) is None


def test_whole_numbers_are_never_where_a_client_could_change_them() -> None:
    memory = mmap.mmap(-1, 512)
    places = [np.frombuffer(memory, kind, 4, at) for kind, at in ((np.float32, 0), (np.int64, 64), (np.uint8, 128))]
    layout = Layout(memory, places, [np.dtype(kind) for kind in ("f4", "i8", "?")], memoryview(memory)[256:])
    floats, whole, truth = layout.take()
    assert floats is places[0] and not np.shares_memory(whole, places[1]) and truth.dtype == np.bool_
    places[1][...], places[2][...] = 5, 3
    assert layout.take()[1].tolist() == [5] * 4 and layout.take()[2].all()
    given: list[Sequence[Array]] = []
    layout.put([np.ones(2, np.float32), np.ones(2, np.int64)])
    layout.bind(lambda inputs, outputs: given.extend((inputs, outputs)))
    assert [np.shares_memory(each, np.frombuffer(memory, np.uint8)) for each in (*given[0], *given[1])] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_answers_of_other_shapes_let_the_bound_ones_go() -> None:
    """Some that come from requests that were run together, for example."""
    memory = mmap.mmap(-1, 512)
    layout = Layout(memory, [], [], memoryview(memory))
    held: list[list[Array]] = []

    class Held:
        def run(self) -> list[Array]:
            return held[0]

    def bind(_inputs: Sequence[Array], outputs: list[Array]) -> Bound:
        held.append(outputs)
        return Held()

    def bound_now() -> Bound | None:
        return layout.bound

    assert layout.put([np.full(2, 1, np.float32)])
    layout.bind(bind)
    assert bound_now() is not None and layout.put(held[0]) == b""
    assert layout.put([np.full(3, 2, np.float32)]) and bound_now() is None
    assert layout.put([np.full(2, 3, np.float32)]), "the client has to be told"
    layout.bind(bind)
    assert bound_now() is None and np.frombuffer(memory, np.float32, 2).tolist() == [3, 3]


@pytest.fixture
def selecting(tmp_path: Path) -> Iterator[Client]:
    reference = make_bundle_of(tmp_path / "bundle", "selecting", selecting_model(), (X, WHICH), (CHOSEN, COUNT))
    with (
        ServedModel(tmp_path / "bundle", reference, tmp_path) as served,
        Client(served.fast_path) as client,
    ):
        yield client


@pytest.mark.skipif(sys.platform != "linux", reason="the fast path is Linux's")
def test_answers_whose_shapes_change_from_run_to_run(selecting: Client) -> None:
    slot = selecting.slot({"x": (8,), "which": (8,)}, output_bytes=1024)
    random = np.random.default_rng(0)
    for count in (3, 3, 3, 5, 5, 0, 8, 1, 1):
        x = random.standard_normal(8, dtype=np.float32)
        which = random.permutation(np.arange(8) < count)
        slot.inputs["x"][...], slot.inputs["which"][...] = x, which
        slot.run()
        np.testing.assert_array_equal(slot.outputs["y"], x[which])
        assert slot.outputs["n"].tolist() == [count]


def test_a_sample_of_bound_tensors_is_of_their_run(linear: Session) -> None:
    """The client may write the next request while a sample waits to be sent."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sampler = Sampler(ours)
    sampler.rate = 1.0
    engine = Engine(linear, Scheduler(), sampler, Statistics(), anywhere=True)
    x, y = np.ones((1, 4), np.float32), np.zeros((1, 3), np.float32)
    answered = threading.Event()

    def done(_outcome: list[Array] | RequestError) -> None:
        x[...], y[...] = -1, -1  # what a client does as soon as it has its answer
        answered.set()

    work = Work([x], done, borrowed=True, bound=_bound(linear, [x], [y]))
    assert not engine.submit(Ticket("a client", 0.0, work=work)).refused
    assert answered.wait(20)
    theirs.settimeout(10)
    sample = samples.receive(theirs)
    assert sample is not None
    inputs, outputs = sample
    assert inputs[0].tolist() == [[1] * 4]
    np.testing.assert_allclose(outputs[0], inputs[0] @ WEIGHTS + BIAS)
    engine.close()
    ours.close()
    theirs.close()
