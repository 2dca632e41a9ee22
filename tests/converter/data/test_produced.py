from __future__ import annotations

from pathlib import Path

import pytest
from tests.converter.data.files import write_lines

from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.data.reading import open_data
from autoglm_edge_converter.errors import ConversionError
from autoglm_edge_converter.limits import DATA_LIMITS
from autoglm_edge_converter.tensors import Port

X = Port("x", "float32", (None, 2))
PAIR = (X, Port("mask", "int64", (1, 1)))
HEAD = ["import numpy as np", ""]


def module(folder: Path, *lines: str) -> Path:
    write_lines(folder / "given.py", [*HEAD, *lines])
    return Path(f"{folder / 'given.py'}:samples")


def test_arrays_pairs_and_dictionaries_are_samples(tmp_path: Path) -> None:
    plain = module(tmp_path, "def samples():", "    for i in range(3):", "        yield np.full(2, i, np.float32)")
    dataset = open_data(plain, [X], DataOptions())
    assert [dataset.load(index)["x"].tolist() for index in range(3)] == [[[i, i]] for i in (0.0, 1.0, 2.0)]
    assert dataset.labels is None
    with_labels = module(
        tmp_path, "def samples():", "    a = np.zeros((1, 2), np.float32)", "    return [(a, 4), ({'x': a}, [1, 2])]"
    )
    dataset = open_data(with_labels, [X], DataOptions())
    assert dataset.labels is not None
    assert [label.tolist() for label in dataset.labels] == [[4], [1, 2]]
    several = module(
        tmp_path,
        "from beside import mask",
        "def samples():",
        "    yield {'mask': mask, 'x': np.zeros(2, np.float32)}",
    )
    write_lines(tmp_path / "beside.py", ["import numpy", "mask = numpy.array([[1]])"])
    assert open_data(several, PAIR, DataOptions()).load(0)["mask"].tolist() == [[1]]


def test_the_digest_follows_what_is_given(tmp_path: Path) -> None:
    body = ("def samples():", "    yield np.zeros(2, np.float32), 1")
    first = open_data(module(tmp_path, *body), [X], DataOptions()).digest()
    assert open_data(module(tmp_path, "# other text", *body), [X], DataOptions()).digest() == first
    assert open_data(module(tmp_path, body[0], body[1].replace("1", "2")), [X], DataOptions()).digest() != first


def test_an_endless_function_is_bounded(tmp_path: Path) -> None:
    endless = module(tmp_path, "def samples():", "    while True:", "        yield np.zeros(2, np.float32)")
    dataset = open_data(endless, [X], DataOptions())
    assert len(dataset) == DATA_LIMITS.produced_samples
    assert f"only the first {DATA_LIMITS.produced_samples} samples" in dataset.notes[0]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["def samples(:"], r"given\.py line 3: SyntaxError"),
        (["1 / 0"], r"given\.py line 3, in <module>: ZeroDivisionError: division by zero"),
        (["import no_such_thing_here"], r"given\.py line 3.*ModuleNotFoundError: No module named"),
        (["def other(): pass"], r"has no function 'samples'"),
        (["def samples(path): pass"], r"TypeError: samples\(\) missing 1 required positional argument"),
        (["def samples(): return 3"], r"TypeError: 'int' object is not iterable"),
        (
            ["def samples():", "    yield np.zeros(2, np.float32)", "    raise SystemExit('no more')"],
            "line 5, in samples",
        ),
        (["def samples():", "    yield np.zeros(2, np.float32)", "    int('x\\ny')"], "line 5, in samples: ValueError"),
        (["def samples(): return []"], "samples in given.py gives no samples"),
        (["def samples(): return [np.zeros(2)]"], r"is float64, the model takes float32.*\.astype"),
        (["def samples(): return [np.zeros(3, np.float32)]"], r"is \[1, 3\], the model takes \[N,2\]"),
        (["def samples(): return ['text']"], "the model takes float32"),
        (["def samples(): return [{'y': np.zeros(2, np.float32), 'z': 1}]"], "no array named after input 'x'"),
        (["def samples(): return [(1, 2, 3)]"], "is a tuple of 3"),
        (["z = np.zeros(2, np.float32)", "def samples(): return [(z, 1), z]"], "a label with 1 of 2 samples"),
        (["z = np.zeros(2, np.float32)", "def samples(): return [(z, object())]"], "the label is no number"),
    ],
)
def test_a_user_s_mistake_is_one_line_with_its_place(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(ConversionError, match=says) as caught:
        open_data(module(tmp_path, *lines), [X], DataOptions())
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="is not a file: give the path of a Python file"):
        open_data(Path(f"{tmp_path}/none.py:samples"), [X], DataOptions())


def test_steps_are_for_files(tmp_path: Path) -> None:
    plain = module(tmp_path, "def samples(): return [np.zeros(2, np.float32)]")
    with pytest.raises(ConversionError, match="a Python function must be given as the model takes them"):
        open_data(plain, [X], DataOptions(crop=True))
