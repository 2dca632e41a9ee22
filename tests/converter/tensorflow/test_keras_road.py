"""From Keras to TFLite and ONNX, with real models in the programs that the command runs."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from tests.converter.tensorflow.roads import DIGITS, assert_same_answers, go, go_alone

from autoglm_edge_converter.runners import open_runner

pytestmark = [
    pytest.mark.slow,
    # Keras 3 saves through numpy arrays that TensorFlow makes in the way of numpy 1
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def _images(count: int) -> Any:
    with np.load(DIGITS / "digits32.npz") as digits:
        return digits["test"][:count, :, :, None].astype(np.float32) / 255


def test_the_digits_network_answers_alike_in_every_format(tmp_path: Path) -> None:
    journey = go_alone("keras", DIGITS / "mbn.keras", tmp_path)
    assert journey.departure["inputs"] == [{"name": "input_layer", "dtype": "float32", "shape": [None, 32, 32, 1]}]
    images = _images(64)
    (logits,) = assert_same_answers(journey, {"input_layer": images})
    (other,) = open_runner(DIGITS / "mbn.onnx").run({"x": images.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(logits, other, atol=1e-4)  # the same weights by another exporter
    assert onnx.load(journey.path("onnx")).opset_import[0].version == 17
    assert journey.steps[0] == "load"


def test_shapes_are_fixed_and_opsets_chosen(tmp_path: Path) -> None:
    options = {"opset": 13}
    journey = go("keras", DIGITS / "mbn.keras", tmp_path, shapes={"input_layer": [1, 32, 32, 1]}, options=options)
    assert journey.departure["inputs"][0]["shape"] == [1, 32, 32, 1]
    assert journey.departure["outputs"][0]["shape"] == [1, 10]
    assert onnx.load(journey.path("onnx")).opset_import[0].version == 13
    assert_same_answers(journey, {"input_layer": _images(1)})


@pytest.mark.parametrize(
    ("shapes", "line"),
    [({"x": [1, 32, 32, 1]}, "--shape names x"), ({"input_layer": [1, 16, 32, 1]}, "does not fit the model's")],
)
def test_a_shape_that_does_not_fit_is_said(shapes: dict[str, list[int]], line: str, tmp_path: Path) -> None:
    journey = go("keras", DIGITS / "mbn.keras", tmp_path, shapes=shapes)
    assert journey.last["kind"] == "BadOption"
    assert line in journey.last["error"]


def test_several_inputs_and_outputs_keep_names_and_order(tmp_path: Path) -> None:
    second = keras.Input((4,), name="zebra")
    first = keras.Input((8, 8, 3), name="aardvark")
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3, activation="relu")(first))
    joined = keras.layers.Concatenate()([features, keras.layers.Dense(6, activation="tanh")(second)])
    outputs = [keras.layers.Dense(3, name="z_scores")(joined), keras.layers.Dense(1, name="a_value")(features)]
    keras.Model([second, first], outputs).save(tmp_path / "two.keras")
    journey = go("keras", tmp_path / "two.keras", tmp_path)
    assert [port["name"] for port in journey.departure["inputs"]] == ["zebra", "aardvark"]
    assert [port["name"] for port in journey.departure["outputs"]] == ["z_scores", "a_value"]
    noise = np.random.default_rng(0)
    feed = {"aardvark": noise.standard_normal((2, 8, 8, 3)), "zebra": noise.standard_normal((2, 4))}
    assert_same_answers(journey, {name: array.astype(np.float32) for name, array in feed.items()})


def test_inputs_given_as_a_dict_are_called_by_its_keys(tmp_path: Path) -> None:
    inputs = {"right": keras.Input((3,), name="right"), "left": keras.Input((3,), name="left")}
    difference = keras.layers.Subtract(name="difference")([inputs["left"], inputs["right"]])
    keras.Model(inputs, {"difference": difference}).save(tmp_path / "dict.keras")
    journey = go("keras", tmp_path / "dict.keras", tmp_path)
    left, right = np.full((1, 3), 5, np.float32), np.full((1, 3), 2, np.float32)
    (found,) = assert_same_answers(journey, {"left": left, "right": right})
    np.testing.assert_array_equal(found, left - right)


def test_an_input_that_is_an_output_too_is_called_otherwise_there(tmp_path: Path) -> None:
    image = keras.Input((5,), name="x")
    last = keras.layers.Dense(3, name="d")(image)
    keras.Model(image, [last, last, image]).save(tmp_path / "twice.keras")
    journey = go("keras", tmp_path / "twice.keras", tmp_path)
    assert [port["name"] for port in journey.departure["outputs"]] == ["d", "d_1", "x_output"]
    given = np.arange(10, dtype=np.float32).reshape(2, 5)
    assert_same_answers(journey, {"x": given})


def test_a_lambda_is_refused(tmp_path: Path) -> None:
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2, name="twice")(image)).save(tmp_path / "lambda.keras")
    journey = go_alone("keras", tmp_path / "lambda.keras", tmp_path)
    assert journey.status == 1
    assert journey.last["kind"] == "BadModel"
    assert "layer 'twice' is a Lambda" in journey.last["error"]


class Squared(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    def call(self, given: Any) -> Any:
        return given * given


def _doubled(given: Any) -> Any:
    return given + given


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (Squared, "a class of your own ('Squared')"),
        (lambda: keras.layers.Activation(_doubled), "a function of your own ('_doubled')"),
    ],
)
def test_a_class_or_function_of_ones_own_is_named(layer: Any, what: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"own.{suffix}"
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Dense(2)(layer()(image))).save(path)
    journey = go("keras", path, tmp_path)
    assert journey.last == {
        "error": f"{path} uses {what}: write it as a SavedModel with model.export(FOLDER)",
        "kind": "BadModel",
    }


def test_an_operator_in_an_old_file_is_not_called_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "doubled.h5"
    image = keras.Input((4,))
    keras.Model(image, keras.ops.tanh(image)).save(path)
    journey = go("keras", path, tmp_path)
    assert "does not read its own operator 'Tanh' again" in journey.last["error"]
    assert "save the model as .keras" in journey.last["error"]


def test_the_cause_is_said_and_not_that_keras_met_it(tmp_path: Path) -> None:
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Dense(2, name="out put")(image)).save(tmp_path / "spaced.keras")
    journey = go_alone("keras", tmp_path / "spaced.keras", tmp_path)  # what Keras was about to name, it leaves behind
    assert "cannot trace the model: ValueError: 'out put' is not a valid scope name" in journey.last["error"]


def test_an_unknown_argument_is_said_without_the_configuration(tmp_path: Path) -> None:
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Dense(2, name="last")(image)).save(tmp_path / "sound.keras")
    path = tmp_path / "newer.keras"
    with zipfile.ZipFile(tmp_path / "sound.keras") as sound, zipfile.ZipFile(path, "w") as newer:
        for name in sound.namelist():
            newer.writestr(name, sound.read(name).replace(b'"units": 2', b'"units": 2, "sparkle": 1'))
    journey = go("keras", path, tmp_path)
    assert journey.last["kind"] == "BadModel"
    assert "sparkle" in journey.last["error"]
    assert "config" not in journey.last["error"]


def test_broken_weights_are_named(tmp_path: Path) -> None:
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(2, name="last")(image))
    model.get_layer("last").set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    model.save(tmp_path / "nan.keras")
    journey = go("keras", tmp_path / "nan.keras", tmp_path)
    assert journey.last == {
        "error": "weight 'last/kernel' holds NaN: the model is damaged or its training diverged",
        "kind": "BrokenWeights",
    }


def _truncated(path: Path) -> None:
    path.write_bytes((DIGITS / "mbn.keras").read_bytes()[:100_000])


def _text(path: Path) -> None:
    path.write_text("not a model")


def _other_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "")


def _damaged(path: Path) -> None:
    shutil.copy(DIGITS / "mbn.keras", path)
    content = bytearray(path.read_bytes())
    content[300_000:300_064] = bytes(255 ^ byte for byte in content[300_000:300_064])
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncated, _text, _other_archive, _damaged])
def test_what_is_no_model_is_refused_in_one_line(damage: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    damage(path)
    journey = go("keras", path, tmp_path / "scratch")
    assert journey.status == 1
    assert journey.last["kind"] in ("NotAModel", "BadModel")
    assert "\n" not in journey.last["error"]
    assert str(path) in journey.last["error"]


def test_an_operator_without_counterpart_is_named_and_the_other_format_made(tmp_path: Path) -> None:
    image = keras.Input((4,), name="x")
    keras.Model(image, keras.ops.erfinv(keras.ops.tanh(image) * 0.5)).save(tmp_path / "erfinv.keras")
    journey = go("keras", tmp_path / "erfinv.keras", tmp_path)
    assert journey.problem("tflite") == "there is no TFLite operator for Erfinv: replace it in the model"
    assert "No Op registered for Erfinv" in (journey.problem("onnx") or "")
    for entry in journey.departure["renditions"]:
        assert entry["road"] not in entry["problem"]  # where it is told, the road stands before it


def test_exact_gelu_is_had_in_both_formats(tmp_path: Path) -> None:
    image = keras.Input((4,), name="x")
    keras.Model(image, keras.layers.Dense(6, activation="gelu")(image)).save(tmp_path / "gelu.keras")
    journey = go("keras", tmp_path / "gelu.keras", tmp_path)
    noise = np.random.default_rng(0).standard_normal((8, 4))
    assert_same_answers(journey, {"x": noise.astype(np.float32) * 3}, tolerance=1e-5)
    graph = onnx.load(journey.path("onnx")).graph
    assert {node.op_type for node in graph.node} >= {"Erf", "Sub"}
    assert {node.domain for node in graph.node} == {""}


@pytest.mark.parametrize(
    ("policy", "last", "tolerance"),
    [("mixed_float16", "float32", 0.01), ("mixed_float16", None, 0.01), ("float64", None, 1e-5)],
)
def test_another_precision_is_written_in_single_precision(
    policy: str, last: str | None, tolerance: float, tmp_path: Path
) -> None:
    image = keras.Input((8, 8, 3), name="image", dtype="float64" if policy == "float64" else None)
    scaled = keras.layers.Normalization(dtype=policy)  # keeps figures that are no weights
    scaled.adapt(np.random.default_rng(1).normal(2, 3, (64, 8, 8, 3)))
    block = keras.Sequential([keras.layers.Conv2D(6, 3, activation="relu", dtype=policy)])
    features = keras.layers.GlobalAveragePooling2D(dtype=policy)(block(scaled(image)))
    keras.Model(image, keras.layers.Dense(3, dtype=last or policy)(features)).save(tmp_path / "other.keras")
    journey = go("keras", tmp_path / "other.keras", tmp_path)
    noise = np.random.default_rng(0).standard_normal((4, 8, 8, 3))
    feed = {"image": noise.astype(journey.departure["inputs"][0]["dtype"])}
    assert_same_answers(journey, feed, tolerance=tolerance)
    assert journey.departure["precision"] == policy.removeprefix("mixed_")
    assert journey.departure["notes"] == [f"the model computes in {policy}; what is written computes in float32"]
    weights = onnx.load(journey.path("onnx")).graph.initializer
    assert {tensor.data_type for tensor in weights} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
