"""Float files of PyTorch models give what PyTorch gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.converter.torch.networks import Flagged, Pictures
from tests.converter.torch.road import TOLERANCE, feed_of, go, largest_difference

from autoglm_edge_converter.usercode import load_function

BOTH = ("onnx", "tflite")
EXAMPLES = Path(__file__).parents[3] / "examples" / "face_pytorch"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("resnet", {"input": (1, 3, 32, 32)}),
        ("mobilenet", {"input": (1, 3, 32, 32)}),
        ("lstm", {"x": (1, 10, 8)}),
    ],
)
def test_a_factory_keeps_its_answers_in_both_formats(
    name: str, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    found = go(name, tmp_path, shapes, BOTH)
    assert {port.name: port.shape for port in found.inputs} == shapes
    differences = largest_difference(found, feed_of(found))
    assert differences.keys() == set(BOTH)
    assert max(differences.values()) <= TOLERANCE


@pytest.mark.slow
def test_integer_tokens_keep_their_dtype_in_both_formats(tmp_path: Path) -> None:
    np.savez(tmp_path / "tokens.npz", tokens=np.arange(12)[None])
    found = go("transformer", tmp_path, {}, BOTH, example_inputs=str(tmp_path / "tokens.npz"))
    assert [(port.name, port.dtype) for port in found.inputs] == [("tokens", "int64")]
    assert [port.name for port in found.outputs] == ["logits"]
    assert max(largest_difference(found, {"tokens": np.arange(12)[None] * 3}).values()) <= TOLERANCE


@pytest.mark.slow
def test_r_net_keeps_its_answers_in_both_formats(tmp_path: Path) -> None:
    found = go(f"{EXAMPLES / 'rnet.py'}:rnet", tmp_path, {"x": (1, 3, 24, 24)}, BOTH)
    assert [port.name for port in found.outputs] == ["box", "face"]
    assert max(largest_difference(found, feed_of(found)).values()) <= TOLERANCE


@pytest.mark.slow
def test_an_exported_program_keeps_its_answers_in_both_formats(tmp_path: Path) -> None:
    rnet = load_function(f"{EXAMPLES / 'rnet.py'}:rnet")
    torch.export.save(torch.export.export(rnet().eval(), (torch.zeros(1, 3, 24, 24),)), tmp_path / "rnet.pt2")
    found = go(tmp_path / "rnet.pt2", tmp_path / "scratch", {}, BOTH)
    assert found.runnable == tmp_path / "rnet.pt2"
    assert [port.name for port in found.outputs] == ["box", "face"]
    assert max(largest_difference(found, feed_of(found)).values()) <= TOLERANCE


def test_names_are_those_of_arguments_and_of_fields(tmp_path: Path) -> None:
    found = go("two_inputs", tmp_path, {"right": (1, 4), "left": (1, 4)})
    assert [port.name for port in found.inputs] == ["left", "right"]
    assert [port.name for port in found.outputs] == ["total", "difference"]
    assert largest_difference(found, feed_of(found))["onnx"] <= TOLERANCE


def test_an_onnx_file_has_its_weights_and_the_names_and_operator_set_asked_for(tmp_path: Path) -> None:
    found = go("two_inputs", tmp_path, {"right": (1, 4), "left": (1, 4)}, opset="17")
    assert found.renditions[0].path is not None
    model = onnx.load(found.renditions[0].path, load_external_data=False)
    onnx.checker.check_model(model)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == [
        "left",
        "right",
        "total",
        "difference",
    ]
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_a_free_batch_stays_free_in_onnx(tmp_path: Path) -> None:
    found = go("resnet", tmp_path, {"input": (-1, 3, 32, 32)})
    assert found.inputs[0].shape == (None, 3, 32, 32)
    assert found.outputs[0].shape == (None, 10)
    feed = {"input": np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32)}
    assert largest_difference(found, feed)["onnx"] <= TOLERANCE


def test_axes_stay_free_beside_example_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "call.npz", tokens=np.arange(12)[None])
    found = go("transformer", tmp_path, {"tokens": (-1, 12)}, example_inputs=str(tmp_path / "call.npz"))
    assert [(port.dtype, port.shape) for port in found.inputs] == [("int64", (None, 12))]
    assert largest_difference(found, {"tokens": np.arange(36).reshape(3, 12)})["onnx"] <= TOLERANCE


@pytest.mark.slow
def test_free_axes_of_a_program_have_the_sizes_of_shape_in_tflite(tmp_path: Path) -> None:
    free = {"x": {2: torch.export.Dim("h", min=8, max=64), 3: torch.export.Dim("w", min=8, max=64)}}
    program = torch.export.export(Pictures().eval(), (torch.zeros(1, 3, 16, 16),), dynamic_shapes=free)
    torch.export.save(program, tmp_path / "model.pt2")
    found = go(tmp_path / "model.pt2", tmp_path / "scratch", {"x": (1, 3, 20, 24)}, BOTH)
    assert found.inputs[0].shape == (1, 3, None, None)
    assert any("x=1,3,20,24" in note for note in found.notes)
    feed = {"x": np.random.default_rng(0).standard_normal((1, 3, 20, 24)).astype(np.float32)}
    assert max(largest_difference(found, feed).values()) <= TOLERANCE


@pytest.mark.slow
def test_free_axes_have_the_sizes_of_a_sample_in_tflite(tmp_path: Path) -> None:
    np.savez(tmp_path / "sample.npz", x=np.zeros((1, 3, 20, 24)))
    found = go("pictures", tmp_path, {"x": (-1, 3, -1, -1)}, BOTH, sample=str(tmp_path / "sample.npz"))
    assert [(port.dtype, port.shape) for port in found.inputs] == [("float32", (None, 3, None, None))]
    feed = {"x": np.random.default_rng(0).standard_normal((1, 3, 20, 24)).astype(np.float32)}
    assert max(largest_difference(found, feed).values()) <= TOLERANCE


@pytest.mark.slow
def test_free_axes_of_a_program_have_the_sizes_of_its_export_in_tflite(tmp_path: Path) -> None:
    free = {"x": {0: torch.export.Dim.AUTO, 2: torch.export.Dim("h", min=8, max=64)}}
    program = torch.export.export(Pictures().eval(), (torch.zeros(2, 3, 16, 12),), dynamic_shapes=free)
    torch.export.save(program, tmp_path / "model.pt2")
    found = go(tmp_path / "model.pt2", tmp_path / "scratch", {}, ("tflite",))
    assert any("x=1,3,16,12" in note for note in found.notes)
    feed = {"x": np.random.default_rng(0).standard_normal((1, 3, 16, 12)).astype(np.float32)}
    assert max(largest_difference(found, feed).values()) <= TOLERANCE


@pytest.mark.slow
def test_free_axes_without_a_size_are_told_with_the_option_that_gives_it(tmp_path: Path) -> None:
    found = go("pictures", tmp_path, {"x": (1, 3, -1, -1)}, BOTH)
    onnx_file, tflite_file = found.renditions
    assert onnx_file.problem is None
    assert tflite_file.problem is not None
    assert tflite_file.problem.endswith("give their sizes with --shape x=1,3,H,W")


def test_a_buffer_that_only_counts_is_no_memory(tmp_path: Path) -> None:
    found = go("counting", tmp_path, {"x": (-1, 4)})
    assert largest_difference(found, feed_of(found))["onnx"] <= TOLERANCE


@pytest.mark.parametrize("name", ["parallel", "compiled"])
def test_shells_around_a_module_are_taken_off(name: str, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(4, 4).state_dict(), tmp_path / "weights.pt")
    found = go(name, tmp_path, {"input": (1, 4)}, state_dict=str(tmp_path / "weights.pt"))
    assert largest_difference(found, feed_of(found))["onnx"] <= TOLERANCE


@pytest.mark.slow
def test_an_argument_that_is_no_tensor_stays_as_it_was_exported(tmp_path: Path) -> None:
    program = torch.export.export(Flagged().eval(), (torch.zeros(1, 4), True))
    torch.export.save(program, tmp_path / "model.pt2")
    found = go(tmp_path / "model.pt2", tmp_path / "scratch", {}, BOTH)
    assert [port.name for port in found.inputs] == ["x"]
    assert max(largest_difference(found, feed_of(found)).values()) <= TOLERANCE


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "net.body."])
def test_a_state_dict_decides_the_answers(prefix: str, tmp_path: Path) -> None:
    layer = torch.nn.Linear(4, 4)
    torch.save({"state_dict": {f"{prefix}{k}": v for k, v in layer.state_dict().items()}}, tmp_path / "weights.pth")
    found = go("linear", tmp_path, {"input": (1, 4)}, state_dict=str(tmp_path / "weights.pth"))
    feed = feed_of(found)
    assert largest_difference(found, feed)["onnx"] <= TOLERANCE
    from autoglm_edge_converter.runners import open_runner

    with torch.no_grad():
        wanted = layer(torch.from_numpy(feed["input"])).numpy()
    np.testing.assert_array_equal(open_runner(found.runnable).run(feed)[0], wanted)


def test_a_factory_without_weights_is_made_alike_each_time(tmp_path: Path) -> None:
    from autoglm_edge_converter.runners import open_runner

    found = go("mobilenet", tmp_path, {"input": (1, 3, 32, 32)})
    feed = feed_of(found)
    one, other = (open_runner(found.runnable).run(feed)[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_what_cannot_be_exported_is_traced_and_a_note_says_so(tmp_path: Path) -> None:
    found = go("unexportable", tmp_path, {"x": (1, 4)}, BOTH)
    traced, missing = found.renditions
    assert traced.road.startswith("torch.jit.trace")
    assert missing.problem is not None
    assert "networks.py line" in missing.problem
    assert any("traced, since torch.export fails" in note for note in found.notes)
    assert largest_difference(replace(found, renditions=(traced,)), feed_of(found))["onnx"] <= TOLERANCE
