from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.converter.data.files import write_lines

from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.data.reading import open_data
from autoglm_edge_converter.errors import ConversionError
from autoglm_edge_converter.tensors import Port

X = Port("x", "float32", (None, 2))
PAIR = (Port("a", "float32", (None, 1)), Port("b", "int64", (1, 3)))


def test_numeric_columns_are_the_input_and_one_has_the_labels(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.csv", ["width,height,label,remark", "1,2.5,1,large", '3,-4e2,0,"a, b"'])
    dataset = open_data(path, [X], DataOptions())
    assert [dataset.load(index)["x"].tolist() for index in (0, 1)] == [[[1.0, 2.5]], [[3.0, -400.0]]]
    assert dataset.load(0)["x"].dtype == np.float32
    assert dataset.labels is not None
    assert [label.tolist() for label in dataset.labels] == [[1], [0]]
    assert dataset.names == ("t.csv line 2", "t.csv line 3")
    assert dataset.notes == ("columns without numbers are left out: remark",)


def test_other_delimiters_no_header_and_a_named_label(tmp_path: Path) -> None:
    plain = write_lines(tmp_path / "a.csv", ["1;2", "3;4"])
    assert open_data(plain, [X], DataOptions()).load(1)["x"].tolist() == [[3.0, 4.0]]
    named = write_lines(tmp_path / "b.tsv", ["p\tq\tkind", "1\t2\tbee", "3\t4\tant"])
    dataset = open_data(named, [X], DataOptions(label_column="kind"))
    assert dataset.labels is not None
    assert [label.tolist() for label in dataset.labels] == [[1], [0]]


def test_several_inputs_have_columns_of_their_names(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.csv", ["b.0,a,b.1,b.2", "1,0.5,2,3"])
    feed = open_data(path, PAIR, DataOptions()).load(0)
    assert feed["a"].tolist() == [[0.5]]
    assert (feed["b"].tolist(), feed["b"].dtype.name) == ([[1, 2, 3]], "int64")


def test_rows_take_the_shape_of_the_input_and_fill_its_batch(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.csv", ["1,2,3,4,5,6", "7,8,9,10,11,12", "0,0,0,0,0,0"])
    assert open_data(path, [Port("x", "float32", (1, None, 2))], DataOptions()).load(0)["x"].shape == (1, 3, 2)
    dataset = open_data(path, [Port("x", "float32", (2, 6))], DataOptions())
    assert len(dataset) == 1
    assert dataset.load(0)["x"].tolist() == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]


@pytest.mark.parametrize(
    ("lines", "inputs", "options", "says"),
    [
        ([], [X], DataOptions(), "holds no samples"),
        (["a,b"], [X], DataOptions(), "only a header"),
        (["a,b", "1,2", "3"], [X], DataOptions(), "line 3 has 1 values, expected 2"),
        (["a,b", "1,2", "3,x"], [X], DataOptions(), "line 3, column 'b': 'x' is not a number"),
        (["a,b", "1,2", "3,"], [X], DataOptions(), "line 3, column 'b' is empty"),
        (["a,b", "1,nan", "3,4"], [X], DataOptions(), "line 2, column 'b' is nan: leave the row out"),
        (["a,b", "1,1e39"], [X], DataOptions(), "too large for float32"),
        (["a,b,c", "1,2,3"], [X], DataOptions(), r"3 numeric columns for 'x', which takes \[1,2\]"),
        (["a,a", "1,2"], [X], DataOptions(), "two columns have the same name"),
        (["a,b", "1,2"], PAIR, DataOptions(), "no column|numeric columns for 'b'"),
        (["a,c", "1,2"], PAIR, DataOptions(), "has no column for input 'b': name it b, or b.0"),
        (["a,b.0,b.1,b.2", "1,2,2.5,3"], PAIR, DataOptions(), "takes int64, whole numbers"),
        (["a,b", "1,2"], [X], DataOptions(label_column="z"), "has no column 'z'"),
        (["a,b", "1,2"], [X], DataOptions(resize="8"), "a table must be given as the model takes them"),
        (['a,b', '1,"2'], [X], DataOptions(), "not a CSV table in UTF-8"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_said_in_one_line(
    tmp_path: Path, lines: list[str], inputs: list[Port], options: DataOptions, says: str
) -> None:
    path = write_lines(tmp_path / "t.csv", lines)
    with pytest.raises(ConversionError, match=says) as caught:
        open_data(path, inputs, options)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet='01.,;"\n\t-eanx \u00e9', max_size=60) | st.text(max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            dataset = open_data(path, [X], DataOptions())
        except ConversionError as error:
            assert "\n" not in str(error)
            return
        assert dataset.load(0)["x"].shape == (1, 2)
        assert np.isfinite(dataset.load(0)["x"]).all()
