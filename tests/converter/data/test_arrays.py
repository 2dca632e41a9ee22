from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autoglm_edge_converter.data.fit import check_finite
from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.data.reading import open_data, read_data
from autoglm_edge_converter.errors import BadOption, BadSamples, NoSamples, SampleMismatch, UnknownShape
from autoglm_edge_converter.tensors import Feed, Port

X = Port("x", "float32", (None, 8))
PAIR = (X, Port("mask", "int64", (None, 2)))


def load_samples(path: Path, inputs: Sequence[Port]) -> tuple[Feed, ...]:
    dataset = open_data(path, inputs, DataOptions())
    feeds = tuple(dataset.load(index) for index in range(len(dataset)))
    for number, feed in enumerate(feeds):
        check_finite(feed, f"sample {number}")
    return feeds


def labels_of(path: Path, inputs: Sequence[Port], names: Sequence[str] | None = None) -> list[list[int]] | None:
    labels = open_data(path, inputs, DataOptions(), names).labels
    return None if labels is None else [label.tolist() for label in labels]


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
    before = open_data(tmp_path, [X], DataOptions()).digest()
    assert open_data(tmp_path, [X], DataOptions()).digest() == before
    np.save(tmp_path / "a.npy", np.ones((1, 8), np.float32))
    assert open_data(tmp_path, [X], DataOptions()).digest() != before


def test_labels_come_from_an_array_of_that_name(tmp_path: Path) -> None:
    rows = np.zeros((3, 8), np.float32)
    np.savez(tmp_path / "a.npz", anything=rows, labels=np.array([2, 0, 1]))
    assert labels_of(tmp_path / "a.npz", [X]) == [[2], [0], [1]]
    np.savez(tmp_path / "b.npz", x=rows, x_labels=np.array([2, 0, 1]))
    assert labels_of(tmp_path / "b.npz", [X]) == [[2], [0], [1]]
    np.savez(tmp_path / "c.npz", x=rows, labels=np.array(["cat", "ant", "bee"]))
    assert labels_of(tmp_path / "c.npz", [X]) == [[2], [0], [1]]
    assert labels_of(tmp_path / "c.npz", [X], ["bee", "ant", "cat"]) == [[2], [1], [0]]


def test_a_fixed_batch_has_a_label_for_each_row(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 8), np.float32), labels=np.arange(4))
    assert labels_of(tmp_path / "a.npz", [Port("x", "float32", (2, 8))]) == [[0, 1], [2, 3]]


def test_an_input_named_labels_is_an_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 8), np.float32), labels=np.zeros((3, 2), np.int64))
    inputs = [X, Port("labels", "int64", (None, 2))]
    assert labels_of(tmp_path / "a.npz", inputs) is None
    assert load_samples(tmp_path / "a.npz", inputs)[0]["labels"].shape == (1, 2)


def test_files_of_a_folder_carry_their_labels_or_lie_in_class_folders(tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / "f" / str(number)).mkdir(parents=True)
        np.savez(tmp_path / f"{number}.npz", x=np.zeros((1, 8), np.float32), labels=np.array([number + 5]))
        np.save(tmp_path / "f" / str(number) / "a.npy", np.zeros((1, 8), np.float32))
    assert labels_of(tmp_path / "f", [X]) == [[0], [1]]
    for extra in (tmp_path / "f").rglob("*.npy"):
        extra.unlink()
    assert labels_of(tmp_path, [X]) == [[5], [6]]


def test_labels_that_are_missing_or_too_many_are_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 8), np.float32), labels=np.arange(4))
    with pytest.raises(SampleMismatch, match="4 labels for 3 samples"):
        labels_of(tmp_path / "a.npz", [X])
    folder = tmp_path / "f"
    folder.mkdir()
    np.savez(folder / "a.npz", x=np.zeros((1, 8), np.float32), labels=np.array([1]))
    np.savez(folder / "b.npz", x=np.zeros((1, 8), np.float32))
    with pytest.raises(SampleMismatch, match=r"b\.npz has no labels, other files have"):
        labels_of(folder, [X])


def test_arrays_are_given_as_the_model_takes_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 8), np.float32))
    with pytest.raises(BadOption, match="pre-processing is for images and sound"):
        open_data(tmp_path / "a.npz", [X], DataOptions(resize="8x8"))


def test_what_is_in_use_is_loaded_with_its_labels(tmp_path: Path) -> None:
    rows = np.arange(80, dtype=np.float32).reshape(10, 8)
    np.savez(tmp_path / "a.npz", x=rows, labels=np.arange(10) % 2)
    data = read_data(tmp_path / "a.npz", [X], seed=0)
    assert data.found == 10
    assert data.parts.used == tuple(range(10))
    assert data.labels is not None
    for feed, label, name in zip(data.feeds, data.labels, data.names, strict=True):
        number = int(name.split()[1])
        np.testing.assert_array_equal(feed["x"][0], rows[number])
        assert label.tolist() == [number % 2]


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
    (tmp_path / "notes.txt").write_text("not a sample")
    with pytest.raises(NoSamples, match=r"cannot be read as \.npz"):
        load_samples(tmp_path / "notes.txt", [X])


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
