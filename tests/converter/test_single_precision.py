"""Weights in half or double precision: the same interface and answers in float32, and all that float32 can have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from tests.converter.odd_graphs import in_double_precision, in_half_precision, model, node, tensor, value, weight

from autoglm_edge_converter import Options, convert
from autoglm_edge_converter.cache import NoCache
from autoglm_edge_converter.data.reading import read_data
from autoglm_edge_converter.given_precision import open_in_single_precision
from autoglm_edge_converter.laboratory import Laboratory
from autoglm_edge_converter.loading import Loading, load_original
from autoglm_edge_converter.progress import Silent
from autoglm_edge_converter.recipes import STATIC
from autoglm_edge_converter.results import Findings
from autoglm_edge_converter.runners.onnx import open_session
from autoglm_edge_converter.single_precision import in_single_precision, precision_of
from autoglm_edge_converter.workbench import Workbench, open_workbench
from autoglm_edge_protocol import bundle

HALF = TensorProto.FLOAT16
Change = Callable[[onnx.GraphProto], None]


def branching() -> onnx.ModelProto:
    """Half precision with all that names a type: constants, casts, branches that read outer values, a shared output."""
    branches = {}
    for name, operator in (("then_branch", "Mul"), ("else_branch", "Add")):
        graph = onnx.helper.make_graph(
            [node("Constant", [], [f"{name}_two"], value=tensor(np.array(2, np.float16), "two")),
             node(operator, ["hidden", f"{name}_two"], [f"{name}_out"])],
            name, [], [value(f"{name}_out", ("N", 4), HALF)],
        )  # fmt: skip
        branches[name] = graph
    nodes = [
        node("MatMul", ["x", "w"], ["hidden"]),
        node("ReduceSum", ["hidden"], ["sum"], keepdims=0),
        node("Cast", ["sum"], ["sum_single"], to=TensorProto.FLOAT),
        node("Greater", ["sum_single", "zero"], ["positive"]),
        node("If", ["positive"], ["chosen"], **branches),
        node("Shape", ["x"], ["shape"]),
        node("Cast", ["shape"], ["sizes"], to=HALF),
        node("ReduceMax", ["sizes"], ["largest"], keepdims=0),
        node("Div", ["chosen", "largest"], ["y"]),
    ]
    constants = [weight("w", 8, 4, dtype=np.float16), tensor(np.array(0, np.float32), "zero")]
    outputs = [value("y", ("N", 4), HALF), value("hidden", ("N", 4), HALF)]
    return model(nodes, constants, inputs=[value("x", ("N", 8), HALF)], outputs=outputs, opset=17)


def answers(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(array) for array in open_session(proto.SerializeToString()).run(None, feed)]


def test_what_names_a_type_is_single_and_the_interface_stays() -> None:
    given = branching()
    untouched = onnx.ModelProto.FromString(given.SerializeToString())
    onnx.checker.check_model(given)
    kind = precision_of(given)
    assert kind == HALF
    single = in_single_precision(given, HALF)
    onnx.checker.check_model(single, full_check=True)
    assert [entry.SerializeToString() for entry in (*single.graph.input, *single.graph.output)] == [
        entry.SerializeToString() for entry in (*given.graph.input, *given.graph.output)
    ]
    assert {t.data_type for t in single.graph.initializer} == {TensorProto.FLOAT}
    for seed in range(4):
        feed = {"x": np.random.default_rng(seed).normal(size=(3, 8)).astype(np.float16)}
        before, after = answers(given, feed), answers(single, feed)
        for old, new in zip(before, after, strict=True):
            assert old.dtype == new.dtype == np.float16
            np.testing.assert_allclose(old, new, rtol=4e-3, atol=4e-3)
    assert given == untouched


def test_a_precision_is_that_of_most_weights() -> None:
    assert precision_of(in_half_precision()[0]) == HALF
    assert precision_of(in_double_precision()[0]) == TensorProto.DOUBLE
    mixed = in_half_precision()[0]
    mixed.graph.initializer.append(tensor(np.zeros((100, 100), np.float32), "large"))
    assert precision_of(mixed) == TensorProto.FLOAT


def test_what_single_precision_does_not_hold_is_left() -> None:
    proto, _ = in_double_precision()
    array = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    array[0, 0] = 1e300
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, proto.graph.initializer[0].name))
    with pytest.raises(ValueError, match="float32 does not"):
        in_single_precision(proto, TensorProto.DOUBLE)


def save(folder: Path, proto: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> tuple[Path, Path]:
    onnx.save(proto, folder / "m.onnx")
    (folder / "samples").mkdir()
    for number, feed in enumerate(feeds):
        np.savez(folder / "samples" / f"{number:02}.npz", **feed)  # type: ignore[arg-type]  # numpy's stub
    return folder / "m.onnx", folder / "samples"


def in_half() -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """A model large enough that 8 bits are worth their while."""
    proto, _ = in_half_precision()
    for entry, shape in zip(proto.graph.initializer, ((256, 1024), (1024, 64)), strict=True):
        entry.CopyFrom(weight(entry.name, *shape, dtype=np.float16))
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 256
    return proto, [{"x": np.random.default_rng(n).normal(size=(1, 256)).astype(np.float16)} for n in range(24)]


def converted(folder: Path, proto: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> Findings:
    """Return what was found on the way to a bundle with the float variant; timing decides the rest."""
    result = convert(*save(folder, proto, feeds), folder / "out", Options(budget_s=20.0))
    assert "fp32" in [variant.id for variant in bundle.verify(result.directory).variants]
    found = result.findings.search
    assert found is not None
    clear = [trial.score.sqnr_db for trial in found.trials if trial.score and trial.candidate.recipe.family == STATIC]
    assert max(level for level in clear if level is not None) > 20
    return result.findings


def test_a_model_in_half_precision_gets_what_any_other_gets(tmp_path: Path) -> None:
    notes = converted(tmp_path, *in_half()).notes
    assert "the weights came in float16 and are computed in float32" in notes


def test_what_does_not_even_run_in_its_own_precision_is_converted(tmp_path: Path) -> None:
    proto, feeds = in_half()
    for entry in (*proto.graph.input, *proto.graph.output):
        entry.type.tensor_type.elem_type = TensorProto.FLOAT
    for entry in proto.graph.initializer:
        entry.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry).astype(ml_dtypes.bfloat16), entry.name))
    proto.graph.node.insert(0, node("Cast", ["x"], ["b"], to=TensorProto.BFLOAT16))
    proto.graph.node[1].input[0] = "b"
    proto.graph.node[-1].output[0] = "c"
    proto.graph.node.append(node("Cast", ["c"], ["y"], to=TensorProto.FLOAT))
    found = converted(tmp_path, proto, [{"x": feed["x"].astype(np.float32)} for feed in feeds])
    (note,) = [note for note in found.notes if "came in bfloat16 and are computed in float32, and so is what" in note]
    assert "onnxruntime does not run" in note


def test_a_model_whose_answers_hang_on_its_precision_stays_as_it_came(tmp_path: Path) -> None:
    """1 + 2e-4 is 1 in half precision, and the model answers with what is left of the 2e-4."""
    proto, feeds = in_half()
    del proto.graph.node[:]
    proto.graph.node.extend(
        [
            node("MatMul", ["x", "w"], ["p"]),
            node("Cast", ["p"], ["single"], to=TensorProto.FLOAT),
            node("Mul", ["single", "small"], ["s"]),
            node("Add", ["s", "one"], ["a"]),
            node("Cast", ["a"], ["rounded"], to=HALF),
            node("Cast", ["rounded"], ["r"], to=TensorProto.FLOAT),
            node("Sub", ["r", "one"], ["left"]),
            node("Cast", ["left"], ["y"], to=HALF),
        ]
    )
    proto.graph.initializer.extend(
        [tensor(np.array(2e-4, np.float32), "small"), tensor(np.array(1, np.float32), "one")]
    )
    result = convert(*save(tmp_path, proto, feeds), tmp_path / "out", Options(budget_s=5.0))
    assert any("came in float16 and stay so" in note for note in result.findings.notes)
    assert bundle.verify(result.directory).variants[0].quality.value == 1.0


def opened(folder: Path, proto: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], change: Change) -> Workbench:
    """Return the workbench of a model whose form in single precision was changed."""
    path, samples = save(folder, proto, feeds)
    source = load_original(str(path), Loading(), folder, Silent())
    assert source.single is not None
    single = onnx.load(source.single)
    change(single.graph)
    onnx.save(single, source.single)
    data = read_data(samples, source.inputs, 0)
    with Laboratory(data.feeds, folder, 1, NoCache()) as laboratory:
        bench = open_in_single_precision(source, lambda one: open_workbench(one, data, laboratory, folder))
    assert bench.source.runnable == source.runnable
    return bench


def of_another_type(graph: onnx.GraphProto) -> None:
    graph.node[-1].attribute[0].i = TensorProto.FLOAT  # and the output is said to be of halves


def of_nothing(graph: onnx.GraphProto) -> None:
    graph.node[-1].op_type = "Log"
    del graph.node[-1].attribute[:]
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT


@pytest.mark.parametrize(
    ("change", "says"),
    [(of_another_type, "in float32 the model does not run"), (of_nothing, "in float32 it gives NaN, infinity")],
)
def test_what_fails_in_single_precision_stays_as_it_came(tmp_path: Path, change: Change, says: str) -> None:
    bench = opened(tmp_path, *in_half(), change)
    assert bench.source.single is None
    assert bench.source.renditions[0].path == bench.original
    assert says in bench.notes[0]


def test_whole_numbers_that_hang_on_the_precision_are_compared_too(tmp_path: Path) -> None:
    """Milliseconds since 1970 have more digits than single precision holds."""
    proto, _ = in_double_precision()
    del proto.graph.node[:]
    proto.graph.node.extend(
        [
            node("Cast", ["x"], ["exact"], to=TensorProto.DOUBLE),
            node("Div", ["exact", "thousand"], ["s"]),
            node("Floor", ["s"], ["f"]),
            node("Cast", ["f"], ["y"], to=TensorProto.INT64),
        ]
    )
    proto.graph.initializer.append(tensor(np.array(1000.0), "thousand"))
    proto.graph.input[0].CopyFrom(value("x", ("N", 4), TensorProto.INT64))
    proto.graph.output[0].CopyFrom(value("y", ("N", 4), TensorProto.INT64))
    feeds = [{"x": np.array([[1_764_400_077_123, 1, 2, 3 + n]], np.int64)} for n in range(24)]
    bench = opened(tmp_path, proto, feeds, lambda graph: None)
    assert "stay so" in bench.notes[0]
    assert "of equal" in bench.notes[0]


def test_an_original_that_overflows_in_halves_is_compared_with_its_float32(tmp_path: Path) -> None:
    proto, feeds = in_half()
    proto.graph.node[-1].output[0] = "product"
    proto.graph.node.extend(
        [
            node("Cast", ["product"], ["single"], to=TensorProto.FLOAT),
            node("Mul", ["single", "many"], ["large"]),
            node("Cast", ["large"], ["half"], to=HALF),
            node("Cast", ["half"], ["infinite"], to=TensorProto.FLOAT),
            node("Sub", ["infinite", "infinite"], ["nothing"]),
            node("Add", ["nothing", "single"], ["sum"]),
            node("Cast", ["sum"], ["y"], to=HALF),
        ]
    )
    proto.graph.initializer.append(tensor(np.array(1e6, np.float32), "many"))
    path, samples = save(tmp_path, proto, feeds)
    result = convert(path, samples, tmp_path / "out", Options(budget_s=5.0))
    (note,) = [note for note in result.findings.notes if "and so is what variants are compared with" in note]
    assert "gives NaN in 'y'" in note


@pytest.mark.parametrize("kind", [HALF, TensorProto.DOUBLE])
def test_windows_name_their_type_as_well(kind: int) -> None:
    nodes = [
        node("HannWindow", ["length"], ["window"], output_datatype=kind),
        node("Mul", ["x", "window"], ["y"]),
    ]
    proto = model(
        nodes,
        [tensor(np.array(8, np.int64), "length")],
        inputs=[value("x", (1, 8), kind)],
        outputs=[value("y", (1, 8), kind)],
    )
    single = in_single_precision(proto, kind)
    onnx.checker.check_model(single, full_check=True)


def test_a_loop_that_carries_a_sequence() -> None:
    sequence = onnx.helper.make_sequence_type_proto(onnx.helper.make_tensor_type_proto(HALF, (1, 8)))
    body = onnx.helper.make_graph(
        [
            node("Identity", ["go"], ["on"]),
            node("SequenceInsert", ["before", "x"], ["after"]),
        ],
        "body",
        [
            value("turn", (), TensorProto.INT64),
            value("go", (), TensorProto.BOOL),
            onnx.helper.make_value_info("before", sequence),
        ],
        [value("on", (), TensorProto.BOOL), onnx.helper.make_value_info("after", sequence)],
    )
    nodes = [
        node("SequenceEmpty", [], ["empty"], dtype=HALF),
        node("Loop", ["turns", "", "empty"], ["all"], body=body),
        node("ConcatFromSequence", ["all"], ["c"], axis=0),
        node("MatMul", ["c", "w"], ["y"]),
    ]
    constants = [tensor(np.array(3, np.int64), "turns"), weight("w", 8, 2, dtype=np.float16)]
    given = model(nodes, constants, inputs=[value("x", (1, 8), HALF)], outputs=[value("y", (3, 2), HALF)])
    single = in_single_precision(given, HALF)
    feed = {"x": np.arange(8, dtype=np.float16).reshape(1, 8)}
    np.testing.assert_allclose(answers(given, feed)[0], answers(single, feed)[0], rtol=4e-3)


def hidden_name(proto: onnx.ModelProto) -> None:
    graph = proto.graph.node[4].attribute[0].g
    graph.node[0].output[0] = graph.node[1].input[1] = "x"


def untyped_output(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.elem_type = 0


def input_that_is_an_output(proto: onnx.ModelProto) -> None:
    proto.graph.output.append(proto.graph.input[0])


def sparse_constant(proto: onnx.ModelProto) -> None:
    values, indices = tensor(np.ones(1, np.float16), "v"), tensor(np.zeros(1, np.int64), "i")
    sparse = onnx.helper.make_sparse_tensor(values, indices, [4])
    proto.graph.node.append(node("Constant", [], ["sparse"], sparse_value=sparse))


@pytest.mark.parametrize("change", [hidden_name, untyped_output, input_that_is_an_output, sparse_constant])
def test_what_cannot_be_written_down_is_refused(change: Callable[[onnx.ModelProto], None]) -> None:
    proto = branching()
    change(proto)
    with pytest.raises(ValueError, match=r"hides|what type|is an output|sparse"):
        in_single_precision(proto, HALF)


def test_an_output_may_be_listed_twice() -> None:
    proto = branching()
    proto.graph.output.append(proto.graph.output[0])
    single = in_single_precision(proto, HALF)
    assert sum("y" in each.output for each in single.graph.node) == 1


def test_limits_beyond_single_precision_become_its_own() -> None:
    nodes = [node("Clip", ["x", "", "most"], ["y"])]
    most = tensor(np.array(np.finfo(np.float64).max), "most")
    kind = TensorProto.DOUBLE
    proto = model(nodes, [most], inputs=[value("x", (1, 2), kind)], outputs=[value("y", (1, 2), kind)])
    single = in_single_precision(proto, kind)
    assert numpy_helper.to_array(single.graph.initializer[0]) == np.finfo(np.float32).max
