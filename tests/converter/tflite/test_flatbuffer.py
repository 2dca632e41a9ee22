"""Reading TFLite files: what is in them, and that no file at all does harm."""

from __future__ import annotations

import time

import flatbuffers
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.converter.tflite.files import MBN, Spec, Step, difference, foreign, make, remembering

from autoglm_edge_converter.errors import NotAModel
from autoglm_edge_converter.tensors import Port
from autoglm_edge_converter.tflite.editing import unpack
from autoglm_edge_converter.tflite.flatbuffer import read_model
from autoglm_edge_converter.tflite.schema import tables

SMALL = remembering()


def test_a_real_file_tells_its_ports_operators_and_weights() -> None:
    found = read_model(MBN.read_bytes())
    assert found.inputs == (Port("x", "float32", (None, 32, 32, 1)),)
    assert found.outputs == (Port("y", "float32", (None, 10)),)
    kinds = {entry.kind for entry in found.operations()}
    assert kinds == {"CONV_2D", "DEPTHWISE_CONV_2D", "PAD", "ADD", "MEAN", "FULLY_CONNECTED"}
    assert 0.9 * MBN.stat().st_size < found.weights_bytes < MBN.stat().st_size


def test_ports_are_named_by_the_signature_in_the_order_of_the_graph() -> None:
    found = read_model(difference(({"b": 1, "a": 0}, {"c": 2})))
    assert [port.name for port in found.inputs] == ["a", "b"]
    assert found.outputs == (Port("c", "float32", (None, 2)),)
    assert [port.name for port in read_model(difference()).inputs] == ["first", "second"]


def test_custom_operators_and_variables_are_told() -> None:
    (operation,) = read_model(foreign()).main.operations
    assert (operation.kind, operation.custom) == ("Swirl", True)
    assert [tensor.name for tensor in read_model(SMALL).main.tensors if tensor.variable] == ["state"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is no TFLite model"),
        (b"\x08\0\0\0ONNX" + bytes(100), "is no TFLite model"),
        (b"\x08\0\0\0TFL3", "damaged"),
        (MBN.read_bytes()[:1000], "damaged"),
        (MBN.read_bytes()[: MBN.stat().st_size // 2], "damaged"),
        (MBN.read_bytes()[:-1000], "damaged"),
    ],
    ids=["empty", "another format", "header only", "a little", "half", "cut short"],
)
def test_what_is_no_whole_model_is_refused_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(NotAModel, match=words) as caught:
        read_model(data, "net.tflite")
    assert str(caught.value).startswith("net.tflite ")
    assert "\n" not in str(caught.value)


def test_references_to_what_is_not_there_are_refused() -> None:
    outside = make([Spec("x", (1,)), Spec("y", (1,))], [Step("ABS", (0,), (7,))], (0,), (1,))
    with pytest.raises(NotAModel, match="a tensor that is not there"):
        read_model(outside)
    short = make([Spec("x", (4,)), Spec("w", (4,), value=np.zeros(3, np.float32))], [], (0,), (0,))
    with pytest.raises(NotAModel, match="weights of tensor 'w' are cut short"):
        read_model(short)


def test_a_file_whose_tables_are_shared_endlessly_is_refused_soon() -> None:
    builder = flatbuffers.Builder(1024)
    graph = tables.SubGraphT(tensors=[tables.TensorT(name="x", shape=[1])] * 1000, inputs=[0], outputs=[0])
    packed = graph.Pack(builder)
    tables.ModelStartSubgraphsVector(builder, 20_000)
    for _ in range(20_000):
        builder.PrependUOffsetTRelative(packed)
    graphs = builder.EndVector()
    buffer = tables.BufferT().Pack(builder)
    tables.ModelStartBuffersVector(builder, 1)
    builder.PrependUOffsetTRelative(buffer)
    buffers = builder.EndVector()
    tables.ModelStart(builder)
    tables.ModelAddVersion(builder, 3)
    tables.ModelAddSubgraphs(builder, graphs)
    tables.ModelAddBuffers(builder, buffers)
    builder.Finish(tables.ModelEnd(builder), file_identifier=b"TFL3")
    started = time.process_time()
    with pytest.raises(NotAModel, match="over and over"):
        read_model(bytes(builder.Output()))
    assert time.process_time() - started < 30  # read in full it would take hours


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes_are_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for place, value in changes:
        data[place] = value
    _read_or_refuse(bytes(data))


@settings(max_examples=200)
@given(st.binary(max_size=400))
@example(b"\xff" * 64)
def test_any_bytes_behind_the_header_are_read_or_refused(rest: bytes) -> None:
    _read_or_refuse(b"\x10\0\0\0TFL3" + rest)


@settings(max_examples=100)
@given(st.integers(0, len(SMALL)))
def test_a_cut_is_read_or_refused(length: int) -> None:
    _read_or_refuse(SMALL[:length])


def _read_or_refuse(data: bytes) -> None:
    try:
        read_model(data)
        unpack(data)
    except NotAModel as error:
        assert "\n" not in str(error)
