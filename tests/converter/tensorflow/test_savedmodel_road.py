"""From SavedModels of TensorFlow 2 and 1 to TFLite and ONNX."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tests.converter.tensorflow.roads import DIGITS, assert_same_answers, go, go_alone

pytestmark = [
    pytest.mark.slow,
    # Keras 3 saves through numpy arrays that TensorFlow makes in the way of numpy 1
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


class TwoWays(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable([2.0, 3.0])

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="b"), tf.TensorSpec([None, 2], name="a")])  # type: ignore[untyped-decorator]
    def combine(self, b: Any, a: Any) -> dict[str, Any]:
        return {"z": b - a, "c": tf.matmul(tf.linalg.diag(self.scale), a, transpose_b=True)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x")])  # type: ignore[untyped-decorator]
    def double(self, x: Any) -> dict[str, Any]:
        return {"twice": x * self.scale}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x")])  # type: ignore[untyped-decorator]
    def step(self, x: Any) -> dict[str, Any]:
        return {"x": x * self.scale, "loss": tf.reduce_sum(x, axis=1)}


def test_a_keras_export_answers_alike(tmp_path: Path) -> None:
    model = keras.saving.load_model(DIGITS / "mbn.keras", compile=False)
    model.export(tmp_path / "exported", verbose=False)
    journey = go_alone("savedmodel", tmp_path / "exported", tmp_path / "scratch")
    (port,) = journey.departure["inputs"]
    images = np.random.default_rng(0).random((3, 32, 32, 1), np.float32)
    (found,) = assert_same_answers(journey, {port["name"]: images})
    np.testing.assert_allclose(found, model(images), atol=1e-4)


def test_one_of_several_signatures_is_taken_by_name(tmp_path: Path) -> None:
    module = TwoWays()
    tf.saved_model.save(module, tmp_path / "two", signatures={"combine": module.combine, "double": module.double})
    undecided = go("savedmodel", tmp_path / "two", tmp_path / "first")
    assert undecided.last["kind"] == "BadOption"
    assert "several signatures (combine, double)" in undecided.last["error"]
    journey = go("savedmodel", tmp_path / "two", tmp_path / "second", options={"signature": "combine"})
    assert [port["name"] for port in journey.departure["outputs"]] == ["c", "z"]
    a, b = np.array([[1, 2]], np.float32), np.array([[5, 7]], np.float32)
    c, z = assert_same_answers(journey, {"a": a, "b": b})
    np.testing.assert_array_equal(z, b - a)
    np.testing.assert_array_equal(c, [[2], [6]])


def test_an_output_with_the_name_of_an_input_is_called_otherwise(tmp_path: Path) -> None:
    module = TwoWays()
    tf.saved_model.save(module, tmp_path / "step", signatures={"step": module.step})
    journey = go("savedmodel", tmp_path / "step", tmp_path / "scratch")
    assert [port["name"] for port in journey.departure["outputs"]] == ["loss", "x_output"]
    loss, stepped = assert_same_answers(journey, {"x": np.array([[1, 2]], np.float32)})
    np.testing.assert_array_equal(loss, [3])
    np.testing.assert_array_equal(stepped, [[2, 6]])


def _write_v1(folder: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="features")
        weights = tf.compat.v1.get_variable("weights", initializer=tf.constant([[1.0], [2.0], [3.0]]))
        y = tf.nn.relu(tf.matmul(x, weights))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(folder), {"features": x}, {"score": y})


def test_a_graph_of_tensorflow_1_is_read(tmp_path: Path) -> None:
    _write_v1(tmp_path / "old")
    journey = go_alone("savedmodel", tmp_path / "old", tmp_path / "scratch")
    (score,) = assert_same_answers(journey, {"features": np.array([[1, 1, 1], [-1, 0, 0]], np.float32)})
    np.testing.assert_array_equal(score, [[6], [0]])


def test_the_loader_of_tensorflow_1_reads_what_the_newer_one_cannot(tmp_path: Path) -> None:
    """The objects beside the graph are damaged, as those of an optimizer that is gone are to TensorFlow 2."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    module = TwoWays()
    tf.saved_model.save(module, tmp_path / "new", signatures={"serving_default": module.double})
    saved = SavedModel.FromString((tmp_path / "new" / "saved_model.pb").read_bytes())
    saved.meta_graphs[0].object_graph_def.nodes[0].children[0].node_id = 9999
    (tmp_path / "new" / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(Exception):  # noqa: B017  # whatever it stumbles over
        tf.saved_model.load(str(tmp_path / "new"))
    journey = go("savedmodel", tmp_path / "new", tmp_path / "scratch")
    (twice,) = assert_same_answers(journey, {"x": np.array([[1, 1]], np.float32)})
    np.testing.assert_array_equal(twice, [[2, 3]])


def test_a_table_is_named(tmp_path: Path) -> None:
    class Lookup(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            pairs = tf.lookup.KeyValueTensorInitializer(tf.constant([1, 2], tf.int64), tf.constant([0.5, 0.25]))
            self.table = tf.lookup.StaticHashTable(pairs, -1.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="key")])  # type: ignore[untyped-decorator]
        def look(self, key: Any) -> dict[str, Any]:
            return {"value": self.table.lookup(key)}

    module = Lookup()
    tf.saved_model.save(module, tmp_path / "table", signatures={"serving_default": module.look})
    journey = go("savedmodel", tmp_path / "table", tmp_path / "scratch")
    for format_ in ("onnx", "tflite"):
        assert "operator LookupTableFindV2 has no counterpart" in (journey.problem(format_) or "")


def test_texts_are_refused(tmp_path: Path) -> None:
    class Length(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])  # type: ignore[untyped-decorator]
        def length(self, text: Any) -> dict[str, Any]:
            return {"length": tf.strings.length(text)}

    module = Length()
    tf.saved_model.save(module, tmp_path / "text", signatures={"serving_default": module.length})
    journey = go("savedmodel", tmp_path / "text", tmp_path / "scratch")
    assert journey.last["kind"] == "BadModel"
    assert "input 'text' takes strings" in journey.last["error"]


@pytest.mark.parametrize("damage", ["empty", "cut", "no weights"])
def test_a_folder_that_is_no_savedmodel_is_refused(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    _write_v1(folder)
    if damage == "empty":
        (folder / "saved_model.pb").unlink()
    elif damage == "cut":
        content = (folder / "saved_model.pb").read_bytes()
        (folder / "saved_model.pb").write_bytes(content[: len(content) // 2])
    else:
        for file in (folder / "variables").glob("*.data*"):
            file.unlink()
    journey = go("savedmodel", folder, tmp_path / "scratch")
    assert journey.last["kind"] == ("MissingWeights" if damage == "no weights" else "NotAModel")
    shutil.rmtree(folder)
