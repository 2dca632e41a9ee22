from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.converter.data.files import tone, write_lines, write_wav

from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.data.reading import open_data
from autoglm_edge_converter.data.wav import read_wav
from autoglm_edge_converter.errors import BadOption, ConversionError, SampleMismatch, UnreadableSample
from autoglm_edge_converter.tensors import Port

CLIP = Port("wave", "float32", (None, 8000))


@pytest.mark.parametrize(
    ("width", "frames", "values"),
    [
        (1, bytes([0, 128, 255]), [-1.0, 0.0, 127 / 128]),
        (2, np.array([-32768, 0, 16384], "<i2").tobytes(), [-1.0, 0.0, 0.5]),
        (3, b"\x00\x00\x80" + b"\x00\x00\x00" + b"\xff\xff\x7f", [-1.0, 0.0, 1 - 2.0**-23]),
        (4, np.array([-(2**31), 0, 2**30], "<i4").tobytes(), [-1.0, 0.0, 0.5]),
    ],
)
def test_every_width_is_read_to_the_last_bit(tmp_path: Path, width: int, frames: bytes, values: list[float]) -> None:
    sound, rate_hz = read_wav(write_wav(tmp_path / "a.wav", frames, width=width, rate_hz=8000))
    assert rate_hz == 8000
    np.testing.assert_array_equal(sound, values)


def test_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.array([[100, 300], [-100, 100]], "<i2").tobytes()
    sound, _ = read_wav(write_wav(tmp_path / "a.wav", stereo, channels=2))
    np.testing.assert_array_equal(sound, [200 / 32768, 0.0])


def test_recordings_are_cut_into_windows(tmp_path: Path) -> None:
    write_wav(tmp_path / "yes" / "a.wav", tone(1.2))
    write_wav(tmp_path / "no" / "b.wav", tone(0.1))
    dataset = open_data(tmp_path, [CLIP], DataOptions())
    assert dataset.names == ("no/b.wav window 0", "yes/a.wav window 0", "yes/a.wav window 1", "yes/a.wav window 2")
    assert dataset.labels is not None
    assert [int(label[0]) for label in dataset.labels] == [0, 1, 1, 1]
    whole, _ = read_wav(tmp_path / "yes" / "a.wav")
    joined = np.concatenate([dataset.load(index)["wave"][0] for index in (1, 2, 3)])
    np.testing.assert_array_equal(joined, np.concatenate([whole, np.zeros(4800)]).astype(np.float32))
    assert "windows of 8000 samples at their own 16000 Hz" in dataset.notes[0]


def test_a_file_of_steps_sets_rate_window_and_hop(tmp_path: Path) -> None:
    write_wav(tmp_path / "w" / "a.wav", tone(1.0, 44100), rate_hz=44100)
    steps = write_lines(
        tmp_path / "s.toml", ["[audio]", "rate_hz = 16000", "window = 8000", "hop = 4000", "normalise = 'peak'"]
    )
    dataset = open_data(tmp_path / "w", [Port("wave", "float32", (1, 1, None))], DataOptions(preprocess=steps))
    assert len(dataset) == 3
    window = dataset.load(1)["wave"]
    assert window.shape == (1, 1, 8000)
    assert np.abs(window).max() == pytest.approx(1.0)
    expected = np.sin(2 * np.pi * 440 * (np.arange(8000) + 4000) / 16000)
    # The filter's ripple is 86 dB below the tone, 16 bits leave 92: together below 1e-4 of the amplitude.
    np.testing.assert_allclose(window[0, 0], expected, atol=3e-4)
    assert dataset.preprocessing is not None
    assert dataset.preprocessing.audio is not None
    assert dataset.preprocessing.audio.rate_hz == 16000


def test_without_a_fixed_length_a_recording_is_one_sample(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(0.5))
    dataset = open_data(tmp_path / "a.wav", [Port("wave", "int16", (1, None))], DataOptions())
    assert len(dataset) == 1
    np.testing.assert_array_equal(dataset.load(0)["wave"][0], np.frombuffer(tone(0.5), "<i2"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read as WAV"),
        (b"RIFF\x00\x00\x00\x00WAVE", "cannot be read as WAV"),
        (b"plain text, no sound", "cannot be read as WAV"),
    ],
    ids=["empty", "header only", "text"],
)
def test_damaged_recordings_are_said_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(UnreadableSample, match=says) as caught:
        open_data(tmp_path, [CLIP], DataOptions())
    assert "\n" not in str(caught.value)


def test_recordings_without_sound_or_cut_short_are_said(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", b"")
    with pytest.raises(UnreadableSample, match="holds no sound"):
        open_data(tmp_path, [CLIP], DataOptions())
    path = write_wav(tmp_path / "a.wav", tone(1.0))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UnreadableSample, match="is cut short"):
        open_data(tmp_path, [CLIP], DataOptions()).load(0)


def test_sound_that_does_not_fit_is_said(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(0.1))
    with pytest.raises(SampleMismatch, match=r"takes \[N,3,64\], sound gives \[1,64\]"):
        open_data(tmp_path, [Port("wave", "float32", (None, 3, 64))], DataOptions()).load(0)
    write_wav(tmp_path / "b.wav", tone(0.1, 8000), rate_hz=8000)
    with pytest.raises(SampleMismatch, match=r"different rates \(8000, 16000 Hz\): give rate_hz"):
        open_data(tmp_path, [CLIP], DataOptions())
    steps = write_lines(tmp_path / "s.toml", ["[audio]", "rate_hz = 5"])
    with pytest.raises(BadOption, match="rate_hz"):
        open_data(tmp_path, [CLIP], DataOptions(preprocess=steps))


@given(st.binary(max_size=200), st.integers(0, 44))
def test_any_bytes_are_read_or_refused_in_one_line(content: bytes, keep: int) -> None:
    with TemporaryDirectory() as folder:
        path = write_wav(Path(folder) / "a.wav", tone(0.01))
        path.write_bytes(path.read_bytes()[:keep] + content)
        try:
            dataset = open_data(path, [CLIP], DataOptions())
            assert np.isfinite(dataset.load(0)["wave"]).all()
        except ConversionError as error:
            assert "\n" not in str(error)
