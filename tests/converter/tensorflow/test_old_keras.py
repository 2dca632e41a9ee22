"""Files of Keras 2: what they say is told to Keras 3 in its own terms, and the weights are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-not-found,import-untyped,unused-ignore]  # it has no types
import keras
import numpy as np
import pytest
from tests.converter.tensorflow.roads import assert_same_answers, go

from autoglm_edge_converter.roads.old_keras import modern

KERAS_2 = Path(__file__).parent / "keras2"

COMMON = {"trainable": True, "dtype": "float32"}
INITIAL = {"class_name": "GlorotUniform", "config": {"seed": None, "dtype": "float32"}}


def _layer(kind: str, name: str, inbound: list[Any], **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "name": name, "config": {"name": name, **COMMON, **config}, "inbound_nodes": inbound}


def _functional() -> dict[str, Any]:
    """A network as Keras 2.4 wrote it, with everything that Keras 3 stumbles over."""
    depthwise = {
        "kernel_size": [3, 3], "strides": [1, 1], "padding": "same", "data_format": "channels_last",
        "dilation_rate": [1, 1], "groups": 1, "activation": "relu6", "use_bias": True, "depth_multiplier": 1,
        "depthwise_initializer": INITIAL, "bias_initializer": {"class_name": "Zeros", "config": {"dtype": "float32"}},
    }  # fmt: skip
    layers = [
        _layer("InputLayer", "image", [], batch_input_shape=[None, 6, 6, 2], sparse=False, ragged=False),
        _layer("DepthwiseConv2D", "depthwise", [[["image", 0, 0, {}]]], **depthwise),
        _layer("BatchNormalization", "norm", [[["depthwise", 0, 0, {}]]], axis=[3], momentum=0.9, epsilon=0.001),
        _layer(
            "TFOpLambda", "tf.math.multiply", [[["norm", 0, 0, {"y": 2.0, "name": None}]]], function="math.multiply"
        ),
        _layer(
            "TFOpLambda",
            "tf.__operators__.add",
            [[["tf.math.multiply", 0, 0, {"y": ["image", 0, 0], "name": None}]]],
            function="__operators__.add",
        ),
        _layer("Activation", "swish", [[["tf.__operators__.add", 0, 0, {}]]], activation="hard_swish"),
        _layer("GlobalAveragePooling2D", "pool", [[["swish", 0, 0, {}]]], data_format="channels_last"),
    ]
    ends = {"input_layers": [["image", 0, 0]], "output_layers": [["pool", 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "old", "layers": layers, **ends}}


def _write(path: Path, config: dict[str, Any], weights: dict[str, dict[str, Any]]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs.update(keras_version="2.4.0", backend="tensorflow", model_config=json.dumps(config))
        group = file.create_group("model_weights")
        group.attrs.update(layer_names=[name.encode() for name in weights], keras_version="2.4.0", backend="tensorflow")
        for layer, arrays in weights.items():
            inner = group.create_group(layer)
            inner.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in arrays]
            for name, array in arrays.items():
                inner[f"{layer}/{name}:0"] = array.astype(np.float32)
    return path


@pytest.mark.slow
def test_an_old_functional_model_computes_what_its_author_meant(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    kernel, bias = noise.standard_normal((3, 3, 2, 1)), noise.standard_normal(2)
    norm = {"gamma": np.ones(2), "beta": np.zeros(2), "moving_mean": np.zeros(2), "moving_variance": np.ones(2)}
    weights = {"depthwise": {"depthwise_kernel": kernel, "bias": bias}, "norm": norm}
    journey = go("keras", _write(tmp_path / "old.h5", _functional(), weights), tmp_path)
    image = noise.standard_normal((2, 6, 6, 2)).astype(np.float32)
    (found,) = assert_same_answers(journey, {"image": image})
    np.testing.assert_allclose(found, _by_hand(image, kernel, bias), atol=1e-4)


def _by_hand(image: Any, kernel: Any, bias: Any) -> Any:
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    filtered = sum(padded[:, i : i + 6, j : j + 6] * kernel[i, j, :, 0] for i in range(3) for j in range(3)) + bias
    added = np.clip(filtered, 0, 6) / np.sqrt(1.001) * 2 + image
    return (added * np.clip(added + 3, 0, 6) / 6).mean((1, 2))


@pytest.mark.slow
def test_an_old_sequential_model_says_its_input_in_the_first_layer(tmp_path: Path) -> None:
    first = _layer("Dense", "first", [], batch_input_shape=[None, 3], units=2, activation="linear", use_bias=True)
    kernel, bias = np.arange(6).reshape(3, 2), np.ones(2)
    config = {"class_name": "Sequential", "config": [{k: v for k, v in first.items() if k != "inbound_nodes"}]}
    journey = go("keras", _write(tmp_path / "seq.h5", config, {"first": {"kernel": kernel, "bias": bias}}), tmp_path)
    (name,) = (port["name"] for port in journey.departure["inputs"])
    x = np.array([[1, 2, 3]], np.float32)
    (found,) = assert_same_answers(journey, {name: x})
    np.testing.assert_allclose(found, x @ kernel + 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobile", "stack", "sequence", "nested", "wrapped"])
def test_what_keras_2_wrote_answers_as_keras_2_does(name: str, tmp_path: Path) -> None:
    """See `keras2/write.py`, which made the files and the answers."""
    shapes = {"tokens": [2, 10]} if name == "sequence" else {}  # recurrent layers in TFLite have a fixed batch
    journey = go("keras", KERAS_2 / f"{name}.h5", tmp_path, shapes=shapes)
    (port,) = journey.departure["inputs"]
    with np.load(KERAS_2 / f"{name}.npz") as known:
        (found,) = assert_same_answers(journey, {port["name"]: known["given"]})
        np.testing.assert_allclose(found, known["answer"], atol=1e-5)  # the same kernels, answers of order 1


@pytest.mark.slow
def test_a_recurrent_layer_with_a_free_batch_has_no_tflite_file(tmp_path: Path) -> None:
    journey = go("keras", KERAS_2 / "sequence.h5", tmp_path)
    assert "need a fixed batch in TFLite: give it with --shape tokens=1,10" in (journey.problem("tflite") or "")
    assert journey.problem("onnx") is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_what_keras_3_writes_in_the_old_format_is_read(tmp_path: Path) -> None:
    image = keras.Input((6, 6, 2), name="image")
    x = keras.layers.Conv2D(3, 3, activation="relu")(image)
    model = keras.Model(image, keras.layers.Add()([x, keras.layers.BatchNormalization()(x)]))
    model.save(tmp_path / "new.h5")
    journey = go("keras", tmp_path / "new.h5", tmp_path)
    noise = np.random.default_rng(0).random((2, 6, 6, 2), "f4")
    (found,) = assert_same_answers(journey, {"image": noise})
    np.testing.assert_allclose(found, model(noise), atol=1e-5)


@pytest.mark.slow
def test_weights_without_a_model_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["kernel"] = np.zeros(3)
    journey = go("keras", tmp_path / "weights.h5", tmp_path)
    assert journey.last["kind"] == "NotAModel"
    assert "holds weights only" in journey.last["error"]


def test_code_in_a_function_name_is_not_called() -> None:
    from autoglm_edge_converter.roads.keras_shims import function_named

    for name in ("io.write_file", "py_function", "raw_ops.WriteFile", "nn.__class__.__name__", "math.sin.__globals__"):
        with pytest.raises(LookupError, match="not known here"):
            function_named(name)


def test_arguments_that_ask_for_something_stay() -> None:
    grouped = {"class_name": "DepthwiseConv2D", "config": {"name": "d", "groups": 2}}
    assert modern(grouped)["config"]["groups"] == 2
    convolution = {"class_name": "Conv2D", "config": {"name": "c", "groups": 1}}
    assert modern(convolution)["config"]["groups"] == 1
