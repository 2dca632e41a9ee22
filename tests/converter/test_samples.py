from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autoglm_edge_converter.errors import BadSamples, NoSamples, SampleMismatch, UnknownShape
from autoglm_edge_converter.samples import load_samples, samples_digest
from autoglm_edge_converter.tensors import Port

X = Port("x", "float32", (None, 8))
PAIR = (X, Port("mask", "int64", (None, 2)))


def test_an_npz_is_cut_along_its_first_axis(tmp_path: Path) -> None:
    rows = np.arange(24, dtype=np.float32).reshape(3, 8)
    np.savez(tmp_path / "s.npz", whatever=rows)
    samples = load_samples(tmp_path / "s.npz", [X])
    assert [sample["x"].shape for sample in samples] == [(1, 8)] * 3
    np.testing.assert_array_equal(np.concatenate([sample["x"] for sample in samples]), rows)


def test_samples_may_carry_their_own_batch_axis(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.zeros((5, 2, 8), np.float32))
    assert [sample["x"].shape for sample in load_samples(tmp_path / "s.npz", [X])] == [(2, 8)] * 5


def test_a_fixed_batch_takes_as_many_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.zeros((6, 8), np.float32))
    assert len(load_samples(tmp_path / "s.npz", [Port("x", "float32", (2, 8))])) == 3


def test_a_folder_gives_a_sample_per_file_in_order_of_name(tmp_path: Path) -> None:
    for number, length in ((2, 7), (1, 5)):
        np.save(tmp_path / f"{number}.npy", np.full((1, length), number, np.float32))
    (tmp_path / "notes.txt").write_text("not a sample")
    samples = load_samples(tmp_path, [Port("x", "float32", (1, None))])
    assert [sample["x"].shape for sample in samples] == [(1, 5), (1, 7)]


def test_the_digest_of_a_folder_follows_its_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 8), np.float32))
    before = samples_digest(tmp_path)
    assert samples_digest(tmp_path) == before
    np.save(tmp_path / "a.npy", np.ones((1, 8), np.float32))
    assert samples_digest(tmp_path) != before


@pytest.mark.parametrize(
    ("arrays", "inputs", "error", "says"),
    [
        ({"x": np.zeros((3, 8), np.uint8)}, [X], SampleMismatch, "uint8, the model takes float32"),
        ({"x": np.zeros((3, 8))}, [X], SampleMismatch, r"float64.*\.astype\(numpy.float32\)"),
        ({"x": np.zeros((3, 9), np.float32)}, [X], SampleMismatch, r"\[1, 9\], the model takes \[N,8\]"),
        ({"x": np.zeros(3, np.float32)}, [X], SampleMismatch, "1 axes, expected 2"),
        ({"x": np.full((3, 8), np.nan, np.float32)}, [X], SampleMismatch, "NaN or infinity"),
        ({"x": np.zeros((3, 8), np.float32)}, PAIR, SampleMismatch, "no array named after input 'mask'"),
        (
            {"x": np.zeros((3, 8), np.float32), "mask": np.zeros((4, 2), np.int64)},
            PAIR,
            SampleMismatch,
            "different numbers of samples",
        ),
        ({"x": np.zeros((0, 8), np.float32)}, [X], NoSamples, "holds no samples"),
        ({}, [X], SampleMismatch, "it has: nothing"),
        ({"x": np.zeros((3, 8), np.float32)}, [Port("x", "float32", None)], UnknownShape, "--shape x=1,3,224,224"),
        (
            {"x": np.zeros((3, 8), np.float32)},
            [Port("x", "float32", (2, 8))],
            SampleMismatch,
            "do not fill batches of 2",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    tmp_path: Path, arrays: dict[str, np.ndarray], inputs: list[Port], error: type[BadSamples], says: str
) -> None:
    np.savez(tmp_path / "s.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options
    with pytest.raises(error, match=says) as caught:
        load_samples(tmp_path / "s.npz", inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY\x01\x00", b"text"])
def test_files_that_are_no_arrays_are_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(NoSamples, match=r"cannot be read as \.npz or \.npy"):
        load_samples(tmp_path / "s.npz", [X])


def test_missing_and_empty_places_are_said(tmp_path: Path) -> None:
    with pytest.raises(NoSamples, match="does not exist"):
        load_samples(tmp_path / "none.npz", [X])
    with pytest.raises(NoSamples, match="holds no samples"):
        load_samples(tmp_path, [X])


DTYPES = st.sampled_from(["float32", "float64", "uint8", "int64", "bool"])


@given(st.data())
def test_any_array_is_either_cut_into_fitting_samples_or_refused(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(DTYPES))
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s.npz"
        np.savez(path, x=array)
        try:
            samples = load_samples(path, [X])
        except BadSamples as error:
            assert "\n" not in str(error)
            return
        for sample in samples:
            assert sample["x"].dtype == np.float32
            assert sample["x"].ndim == 2
            assert sample["x"].shape[1] == 8


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_one_line(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s.npy"
        path.write_bytes(content)
        with pytest.raises(BadSamples) as caught:
            load_samples(path, [X])
        assert "\n" not in str(caught.value)
