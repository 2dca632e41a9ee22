"""Weights in half or double precision: the same interface and answers in float32, and all that float32 can have."""

from __future__ import annotations

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
from autoglm_edge_converter.single_precision import in_single_precision, other_precision
from autoglm_edge_converter.workbench import open_workbench
from autoglm_edge_protocol import bundle

HALF = TensorProto.FLOAT16


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
    kind = other_precision(given)
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
    assert other_precision(in_half_precision()[0]) == HALF
    assert other_precision(in_double_precision()[0]) == TensorProto.DOUBLE
    mixed = in_half_precision()[0]
    mixed.graph.initializer.append(tensor(np.zeros((100, 100), np.float32), "large"))
    assert other_precision(mixed) is None


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
    # Where nothing but its own conversions is in half precision, the runtime computes in float32, too.
    assert "the weights came in float16 and are computed in float32: the same answers" in notes


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
    assert any("bfloat16 does not run here" in note for note in found.notes)


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
    assert any("the weights stay in float16, of which" in note for note in result.findings.notes)
    assert bundle.verify(result.directory).variants[0].quality.value == 1.0


def test_what_the_runtime_does_not_take_in_single_precision_stays_as_it_came(tmp_path: Path) -> None:
    proto, feeds = in_half()
    path, samples = save(tmp_path, proto, feeds)
    source = load_original(str(path), Loading(), tmp_path, Silent())
    assert source.as_given is not None
    single = onnx.load(source.runnable)
    single.graph.node[-1].attribute[0].i = TensorProto.FLOAT  # and the output is said to be of halves
    onnx.save(single, source.runnable)
    data = read_data(samples, source.inputs, 0)
    with Laboratory(data.feeds, tmp_path, 1, NoCache()) as laboratory:
        bench = open_in_single_precision(source, lambda one: open_workbench(one, data, laboratory, tmp_path))
    assert bench.source.runnable == source.as_given == bench.source.renditions[0].path
    assert any(note.startswith("the weights stay in float16") for note in bench.notes)
