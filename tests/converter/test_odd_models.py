"""Whatever valid model is given: a bundle whose float form answers as the original, and 8 bits or a reason for none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.converter.graphs import linear, linear_samples
from tests.converter.odd_graphs import ODD, Odd

from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.errors import BadModel
from autoglm_edge_converter.inspection import weighted_nodes
from autoglm_edge_converter.optimise import PassOutcome, optimise
from autoglm_edge_converter.passes import PASSES
from autoglm_edge_converter.quality import Score, score
from autoglm_edge_converter.runners.onnx import open_session
from autoglm_edge_converter.source import load_source
from autoglm_edge_protocol import bundle


@pytest.mark.slow
@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_an_odd_model_becomes_a_valid_bundle(tmp_path: Path, make: Callable[[], Odd]) -> None:
    proto, feeds = make()
    onnx.save(proto, tmp_path / "m.onnx")
    (tmp_path / "samples").mkdir()
    for number, feed in enumerate(feeds):
        np.savez(tmp_path / "samples" / f"{number:02}.npz", **feed)  # type: ignore[arg-type]  # numpy's stub
    result = convert(tmp_path / "m.onnx", tmp_path / "samples", tmp_path / "out", Options(budget_s=5.0))
    manifest = bundle.verify(result.directory)
    float_variant = next(variant for variant in manifest.variants if variant.id == "fp32")
    assert float_variant.quality.value == 1.0
    eight = [variant for variant in manifest.variants if variant.id.startswith("int8")]
    assert eight or [refusal.precision for refusal in result.findings.refusals] == ["int8"]


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_passes_leave_the_interface_and_the_answers(tmp_path: Path, make: Callable[[], Odd]) -> None:
    proto, feeds = make()
    onnx.save(proto, tmp_path / "m.onnx")
    source = load_source(tmp_path / "m.onnx")
    names = [port.name for port in source.outputs]

    def answers(model: onnx.ModelProto) -> tuple[tuple[np.ndarray, ...], ...]:
        session = open_session(model.SerializeToString())
        return tuple(tuple(np.asarray(a) for a in session.run(None, feed)) for feed in feeds[:4])

    references = answers(source.proto)

    def check(model: onnx.ModelProto) -> Score:
        return score(names, references, answers(model))

    outcomes: list[PassOutcome] = []
    result = optimise(source.proto, PASSES, check, outcomes.append)
    session = open_session(result.SerializeToString())
    assert [entry.name for entry in session.get_inputs()] == [port.name for port in source.inputs]
    assert [entry.name for entry in session.get_outputs()] == names
    assert len({entry.name for entry in result.graph.node}) == len(result.graph.node)


def test_parts_beside_control_flow_are_quantized(tmp_path: Path) -> None:
    for make in ODD[:3]:
        onnx.save(make()[0], tmp_path / "m.onnx")
        assert weighted_nodes(load_source(tmp_path / "m.onnx").proto.graph), make.__name__


def test_constants_of_old_files_become_the_models_own() -> None:
    old, _ = next(make for make in ODD if make.__name__ == "an_old_file")()
    assert len(old.graph.input) == 5
    assert [value.name for value in PASSES["own-constants"](old).graph.input] == ["x"]


def text(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def sequence_in(graph: onnx.GraphProto) -> None:
    graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None))


def sequence_out(graph: onnx.GraphProto) -> None:
    graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (text, "input 'x' is text"),
        (sequence_in, "input 'x' is of the kind sequence"),
        (sequence_out, "output 'y' is of the kind sequence"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(
    tmp_path: Path, change: Callable[[onnx.GraphProto], None], says: str
) -> None:
    proto = onnx.load(linear(tmp_path / "m.onnx"))
    change(proto.graph)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(BadModel, match=says):
        load_source(tmp_path / "m.onnx")


def test_classifiers_of_skl2onnx_are_told_how_to_be_exported(tmp_path: Path) -> None:
    proto = onnx.load(linear(tmp_path / "m.onnx"))
    answer = proto.graph.output[0]
    classes = list(range(answer.type.tensor_type.shape.dim[-1].dim_value or 10))
    proto.graph.node.add(op_type="ZipMap", domain="ai.onnx.ml", input=[answer.name], output=["z"]).attribute.append(
        helper.make_attribute("classlabels_int64s", classes)
    )
    each = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    answer.CopyFrom(helper.make_value_info("z", helper.make_sequence_type_proto(each)))
    proto.opset_import.add(domain="ai.onnx.ml", version=1)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(BadModel, match=r"output 'z' is of the kind sequence; .* export it with zipmap=False"):
        load_source(tmp_path / "m.onnx")


def test_weights_above_2_gib_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """The weights are a sparse file, which takes no room on the disk."""
    proto = onnx.load(linear(tmp_path / "m.onnx"))
    rows = 2**29 // 4 + 1
    big = proto.graph.initializer.add(name="big", data_type=TensorProto.FLOAT, dims=[rows, 4])
    big.data_location = TensorProto.EXTERNAL
    big.external_data.add(key="location", value="weights.bin")
    onnx.save(proto, tmp_path / "m.onnx")
    (tmp_path / "weights.bin").touch()
    os.truncate(tmp_path / "weights.bin", rows * 16)
    with pytest.raises(BadModel, match="models above 2 GiB cannot be converted yet"):
        convert(tmp_path / "m.onnx", linear_samples(tmp_path / "s.npz"), tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))
