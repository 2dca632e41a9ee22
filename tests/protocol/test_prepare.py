"""The steps from pictures and sounds to inputs, against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from tests.protocol.example_documents import MANIFEST

from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.manifest import Manifest
from autoglm_edge_protocol.prepare_audio import audio_inputs, resample
from autoglm_edge_protocol.prepare_image import as_dtype, image_input
from autoglm_edge_protocol.preprocessing import AudioSteps, ImageSteps, Preprocessing, Size

PHOTO = np.random.default_rng(0).integers(0, 256, (30, 50, 3)).astype(np.uint8)


def test_a_pixel_of_255_is_exactly_one() -> None:
    steps = ImageSteps(scale=1 / 255)
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tensor = image_input(every, steps)
    np.testing.assert_array_equal(tensor[0], (every / 255).astype(np.float32).transpose(2, 0, 1))


def test_resizing_is_pillow_s() -> None:
    tensor = image_input(PHOTO, ImageSteps(resize=Size(width=20, height=10), layout="nhwc", dtype="uint8"))
    expected = np.asarray(Image.fromarray(PHOTO).resize((20, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(tensor[0], expected)


def test_grey_is_luma_and_bgr_is_turned() -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    assert set(image_input(red, ImageSteps(colour="grey")).ravel().tolist()) == {60.0}  # 0.299 x 200 = 59.8
    assert image_input(red, ImageSteps(colour="bgr", layout="nhwc"))[0, 0, 0].tolist() == [0.0, 0.0, 200.0]


@pytest.mark.parametrize("fit", ["stretch", "cover", "pad"])
def test_every_fit_gives_the_size(fit: str) -> None:
    for width, height in ((7, 31), (31, 7), (50, 30), (1, 1)):
        steps = ImageSteps.model_validate({"fit": fit, "resize": {"width": width, "height": height}})
        assert image_input(PHOTO, steps).shape == (1, 3, height, width)


def test_pad_keeps_the_whole_image_in_the_middle_and_cover_its_centre() -> None:
    white = np.full((10, 20, 3), 255, np.uint8)
    padded = image_input(white, ImageSteps(resize=Size(width=20, height=20), fit="pad"))
    assert padded[0, 0, :, 0].tolist() == [114.0] * 5 + [255.0] * 10 + [114.0] * 5
    white[:, 5:15] = 0
    covered = image_input(white, ImageSteps(resize=Size(width=10, height=10), fit="cover"))
    assert covered.max() == 0


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40))
def test_any_image_covers_any_size(width: int, height: int, to_width: int, to_height: int) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    for fit in ("cover", "pad"):
        steps = ImageSteps.model_validate({"fit": fit, "resize": {"width": to_width, "height": to_height}})
        assert image_input(pixels, steps).shape[2:] == (to_height, to_width)


def test_whole_numbers_round_half_to_even_and_saturate() -> None:
    numbers = np.array([-3.0, 0.5, 1.5, 254.5, 300.0])
    assert as_dtype(numbers, "uint8").tolist() == [0, 0, 2, 254, 255]
    assert as_dtype(np.array([1e30, -1e30]), "int64").tolist() == [2**63 - 1024, -(2**63)]


@pytest.mark.parametrize(
    ("pixels", "steps"),
    [
        (np.zeros((4, 4), np.uint8), ImageSteps()),
        (np.zeros((4, 4, 3), np.float32), ImageSteps()),
        (np.zeros((0, 4, 3), np.uint8), ImageSteps()),
        (np.zeros((4, 4, 3), np.uint8), ImageSteps(crop=Size(width=5, height=2))),
    ],
)
def test_what_is_no_image_is_refused(pixels: np.ndarray, steps: ImageSteps) -> None:
    with pytest.raises(ValueError, match="image"):
        image_input(pixels, steps)


@pytest.mark.parametrize(
    ("from_hz", "to_hz"), [(44100, 16000), (48000, 16000), (8000, 16000), (16000, 44100), (22050, 16000)]
)
def test_a_tone_keeps_its_pitch_at_another_rate(from_hz: int, to_hz: int) -> None:
    times = np.arange(from_hz // 2) / from_hz
    found = resample(np.sin(2 * np.pi * 440 * times), from_hz, to_hz)
    assert len(found) == math.ceil(len(times) * to_hz / from_hz)
    expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / to_hz)
    inner = slice(200, -200)  # the ends lie next to silence
    # The filter's ripple is 85 dB below the tone, 5.6e-5 of its amplitude; peaks reach three times that.
    np.testing.assert_allclose(found[inner], expected[inner], atol=2e-4)


def test_what_the_lower_rate_cannot_hold_is_removed() -> None:
    times = np.arange(48000) / 48000
    found = resample(np.sin(2 * np.pi * 11000 * times), 48000, 16000)
    assert np.abs(found[200:-200]).max() < 2e-4


@given(st.integers(1, 400), st.sampled_from([8000, 11025, 16000]), st.sampled_from([8000, 16000, 22050]))
def test_a_constant_stays_between_its_ends_and_lengths_are_as_stated(length: int, from_hz: int, to_hz: int) -> None:
    found = resample(np.ones(length), from_hz, to_hz)
    assert len(found) == math.ceil(length * to_hz / from_hz)
    if length > 100:
        middle = found[len(found) // 2]
        assert middle == pytest.approx(1.0, abs=1e-9)


def test_windows_step_by_the_hop_and_the_last_is_filled() -> None:
    steps = AudioSteps(window=4, hop=2, dtype="float64")
    found = [window[0].tolist() for window in audio_inputs(np.arange(7.0), 16000, steps)]
    assert found == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 0]]
    assert [w.shape for w in audio_inputs(np.arange(3.0), 16000, steps)] == [(1, 4)]
    assert [w.shape for w in audio_inputs(np.arange(9.0), 16000, AudioSteps())] == [(1, 9)]


def test_normalising_leaves_silence_alone() -> None:
    for how, largest in (("peak", 1.0), ("rms", math.sqrt(2))):
        steps = AudioSteps.model_validate({"normalise": how, "dtype": "float64"})
        tone = 0.1 * np.sin(np.arange(1000) * 2 * np.pi / 100)
        assert next(audio_inputs(tone, 8000, steps)).max() == pytest.approx(largest)
        assert not next(audio_inputs(np.zeros(10), 8000, steps)).any()
    loud = next(audio_inputs(np.array([-1.0, 1.0]), 8000, AudioSteps(dtype="int16")))
    assert loud.tolist() == [[-32768, 32767]]


@pytest.mark.parametrize(
    "values",
    [
        {"input": "x"},
        {"input": "x", "image": {}, "audio": {}},
        {"input": "x", "image": {"std": [0]}},
        {"input": "x", "image": {"colour": "grey", "mean": [1, 2, 3]}},
        {"input": "x", "image": {"resize": {"width": 4, "height": 4}, "crop": {"width": 5, "height": 4}}},
        {"input": "x", "image": {"resize": {"width": 99999, "height": 4}}},
        {"input": "x", "audio": {"rate_hz": 10}},
        {"input": "x", "audio": {"window": 0}},
    ],
)
def test_steps_that_make_no_sense_are_no_document(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate(values)


def test_a_manifest_carries_the_steps_and_old_ones_have_none() -> None:
    assert MANIFEST.preprocessing is None
    steps = Preprocessing(input="x", image=ImageSteps(scale=1 / 255, mean=(0.5, 0.25, 0.125)))
    written = MANIFEST.model_copy(update={"preprocessing": steps}).to_bytes()
    assert parse(Manifest, written).preprocessing == steps
    old = MANIFEST.model_dump(mode="json")
    del old["preprocessing"]
    assert Manifest.model_validate(old).preprocessing is None
