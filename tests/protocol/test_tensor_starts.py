"""Where tensors begin in real model files, and what becomes of files that are none."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.onnx_writer import linear_model
from tests.fakes.tflite_writer import flatbuffer

from autoglm_edge_protocol import onnx_tensors, tflite_tensors
from autoglm_edge_protocol.bundle import list_files, read_chunk_index
from autoglm_edge_protocol.chunk_index import write_chunk_index
from autoglm_edge_protocol.tensor_places import Data, TensorPlace
from autoglm_edge_protocol.tensor_starts import LEAST_BYTES, tensor_starts

EXAMPLES = Path(__file__).parents[2] / "examples" / "digits"
RANDOM = np.random.default_rng(3)
WEIGHTS = RANDOM.standard_normal((700, 10), dtype=np.float32)  # 28,000 bytes
BODY = RANDOM.standard_normal((700, 700), dtype=np.float32)
BIAS = RANDOM.standard_normal(10, dtype=np.float32)
MODEL = linear_model(WEIGHTS, BIAS, body=BODY)


def _starts(folder: Path, files: dict[str, bytes]) -> dict[str, tuple[int, ...]]:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return tensor_starts(folder, files)


def test_large_tensors_of_an_onnx_model(tmp_path: Path) -> None:
    found = _starts(tmp_path, {"variants/a/model.onnx": MODEL, "labels.txt": b"a\n" * 20_000})
    assert found == {"variants/a/model.onnx": (MODEL.index(BODY.tobytes()), MODEL.index(WEIGHTS.tobytes()))}
    assert BIAS.nbytes < LEAST_BYTES


def test_chunks_begin_at_tensors(tmp_path: Path) -> None:
    (starts,) = _starts(tmp_path, {"model.onnx": MODEL}).values()
    write_chunk_index(tmp_path, list_files(tmp_path, ["model.onnx"]))
    (chunked,) = read_chunk_index(tmp_path).files
    begins = np.cumsum([0, *(chunk.size_bytes for chunk in chunked.chunks)])
    assert set(starts) <= set(begins.tolist())


def test_constants_and_branches_of_a_real_model() -> None:
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    arrays = [RANDOM.standard_normal(5000).astype(np.float32) for _ in range(3)]
    branch = [
        helper.make_graph(
            [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(array))],
            "branch",
            [],
            [helper.make_tensor_value_info("c", 1, [5000])],
        )
        for array in arrays[:2]
    ]
    nodes = [
        helper.make_node("If", ["x"], ["y"], then_branch=branch[0], else_branch=branch[1]),
        helper.make_node("Add", ["y", "w"], ["z"]),
    ]
    floats = helper.make_tensor("w", 1, [5000], arrays[2].tolist())  # as float_data, not as raw_data
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 9, [])],
        [helper.make_tensor_value_info("z", 1, [5000])],
        [floats],
    )
    model = helper.make_model(graph)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    large = [place for place in onnx_tensors.find(data) if place.size_bytes >= LEAST_BYTES]
    assert {place.offset for place in large} == {data.index(array.tobytes()) for array in arrays}
    assert {place.size_bytes for place in large} == {20_000}


def test_tensors_in_a_file_beside_the_model(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnx.save_model(
        onnx.load_model_from_string(MODEL),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="model.data",
        size_threshold=1000,
    )
    weights = (tmp_path / "model.data").read_bytes()
    found = tensor_starts(tmp_path, ["model.onnx", "model.data"])
    assert found == {"model.data": tuple(sorted(weights.index(array.tobytes()) for array in (BODY, WEIGHTS)))}
    assert tensor_starts(tmp_path, ["model.onnx"]) == {}


def test_a_model_names_only_files_of_the_bundle(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for location in ("../../outside", "/etc/passwd", "a\x00b", "", "."):
        tensor = onnx.TensorProto(name="w", data_type=1, dims=[5000], data_location=1)
        for key, value in {"location": location, "offset": "4096", "length": "20000"}.items():
            tensor.external_data.add(key=key, value=value)
        graph = onnx.GraphProto(name="g", initializer=[tensor])
        data = onnx.ModelProto(ir_version=8, graph=graph).SerializeToString()
        assert _starts(tmp_path, {"model.onnx": data, "other": b"x"}) == {}


def test_buffers_of_a_tflite_model_are_the_runtimes(tmp_path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    data = (EXAMPLES / "mbn.tflite").read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    buffers = [model.Buffers(number).DataAsNumpy() for number in range(model.BuffersLength())]
    expected = {(len(each), each.tobytes()) for each in buffers if isinstance(each, np.ndarray) and len(each)}
    found = tflite_tensors.find(data)
    assert {(p.size_bytes, data[p.offset : p.offset + p.size_bytes]) for p in found if p.size_bytes} == expected
    shutil.copy(EXAMPLES / "mbn.tflite", tmp_path / "model.tflite")
    large = tuple(sorted(place.offset for place in found if place.size_bytes >= LEAST_BYTES))
    assert large and tensor_starts(tmp_path, ["model.tflite"]) == {"model.tflite": large}


def test_buffers_behind_the_flatbuffer_of_a_large_tflite_model() -> None:
    inside, behind = bytes(20_000), RANDOM.bytes(30_000)
    data = flatbuffer([inside, None], [behind])
    assert [place.size_bytes for place in tflite_tensors.find(data)] == [20_000, 30_000]
    assert data[tflite_tensors.find(data)[1].offset :] == behind
    with pytest.raises(ValueError, match="over the end"):
        tflite_tensors.find(data[:-1])


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
@pytest.mark.parametrize("data", [b"", b"\x00", b"{}" * 5000, MODEL[:-1], bytes(9000)], ids=len)
def test_what_is_no_model_has_no_tensors(tmp_path: Path, name: str, data: bytes) -> None:
    assert _starts(tmp_path, {name: data}) == {}


def test_more_fields_than_a_model_has_are_given_up() -> None:
    tensor = b"\x25\x00\x00\x00\x00" * (onnx_tensors.MAX_FIELDS + 1)  # float_data that is not packed
    graph = b"\x2a" + _size(len(tensor)) + tensor
    with pytest.raises(ValueError, match="fields"):
        onnx_tensors.find(b"\x3a" + _size(len(graph)) + graph)


def test_deep_nesting_costs_no_stack() -> None:
    data = b""
    for _ in range(3000):  # a graph in an attribute in a node in a graph
        for key in (b"\x0a", b"\x2a", b"\x32"):
            data = key + _size(len(data)) + data
    assert onnx_tensors.find(b"\x3a" + _size(len(data)) + data) == []


def _size(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


SMALL = linear_model(WEIGHTS[:6], BIAS, body=BODY[:6, :6])
TFLITE = flatbuffer([b"abcdefgh", None], [b"behind it"])


@settings(max_examples=400)
@given(
    st.sampled_from([(onnx_tensors.find, SMALL), (tflite_tensors.find, TFLITE)]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 400),
)
def test_changed_bytes_give_places_or_a_value_error(
    case: tuple[Callable[[Data], list[TensorPlace]], bytes], changes: list[tuple[int, int]], length: int
) -> None:
    find, seed = case
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    data = data[: max(1, length)] if length < len(data) and length % 2 else data
    try:
        places = find(bytes(data))
    except ValueError:
        return
    assert all(place.offset >= 0 for place in places if place.file is None)
    assert all(place.offset + place.size_bytes <= len(data) for place in places if place.file is None)


def test_offsets_that_go_backwards_are_no_loop() -> None:
    data = bytearray(TFLITE)
    struct.pack_into("<i", data, struct.unpack_from("<I", data)[0], 2**31 - 1)
    with pytest.raises(ValueError):
        tflite_tensors.find(bytes(data))
