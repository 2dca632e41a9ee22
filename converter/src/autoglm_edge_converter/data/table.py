"""A CSV table: a sample per row, numeric columns as the inputs, one column with labels.

With one input its numbers are all numeric columns in their order. With several, input NAME has the column NAME, or the
columns NAME.0, NAME.1, ... A row is brought to the input's shape.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoglm_edge_converter.data.classes import number_classes
from autoglm_edge_converter.data.dataset import Dataset
from autoglm_edge_converter.data.fit import written
from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.errors import NoSamples, SampleMismatch, UnreadableSample
from autoglm_edge_converter.limits import DATA_LIMITS
from autoglm_edge_converter.tensors import Array, Port
from autoglm_edge_protocol.digests import sha256_of_file

SUFFIXES = (".csv", ".tsv")
LABEL_COLUMN = "label"
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Table:
    """Cells as written. `lines` are the rows' line numbers in the file."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]


def table(path: Path, inputs: Sequence[Port], options: DataOptions, class_names: Sequence[str] | None) -> Dataset:
    """Return a sample per row. Raises NoSamples, SampleMismatch, UnreadableSample, OSError."""
    found = read_table(path)
    label = _label_column(found, options.label_column)
    columns, notes = _columns(found, inputs, label)
    arrays = {port.name: _array(found, port, columns[port.name]) for port in inputs}
    numbered = number_classes([row[label] for row in found.rows], class_names) if label is not None else None
    return Dataset(
        names=tuple(f"{path.name} line {line}" for line in found.lines),
        load=lambda index: {name: array[index] for name, array in arrays.items()},
        digest=lambda: sha256_of_file(path),
        labels=numbered.labels if numbered else None,
        notes=(*notes, *(numbered.notes if numbered else ())),
        class_names=numbered.names if numbered else (),
    )


def read_table(path: Path) -> Table:
    """Read the cells; without a header the columns are named by number. Raises NoSamples, UnreadableSample, OSError."""
    if path.stat().st_size > DATA_LIMITS.table_bytes:
        raise UnreadableSample(f"{path} has more than {DATA_LIMITS.table_bytes} bytes: give .npz instead")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(_DELIMITERS, key=first.count), strict=True)
            cells = [(reader.line_num, tuple(cell.strip() for cell in row)) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableSample(f"{path} is not a CSV table in UTF-8 ({error}): save it again as CSV") from None
    if not cells:
        raise NoSamples(f"{path} holds no samples: give a row for each, with the numbers that the model takes")
    width = len(cells[0][1])
    if width > DATA_LIMITS.table_columns:
        raise UnreadableSample(f"{path} has more than {DATA_LIMITS.table_columns} columns: give .npz instead")
    for line, row in cells:
        if len(row) != width:
            raise SampleMismatch(f"{path} line {line} has {len(row)} values, expected {width} as in the first line")
    return _with_header(path, cells, width)


def _with_header(path: Path, cells: list[tuple[int, tuple[str, ...]]], width: int) -> Table:
    named = not any(_is_number(cell) for cell in cells[0][1])
    header = cells[0][1] if named else tuple(str(number) for number in range(width))
    rows = cells[1:] if named else cells
    if not rows:
        raise NoSamples(f"{path} holds no samples, only a header: give a row for each")
    if len(set(header)) != width:
        raise SampleMismatch(f"{path}: two columns have the same name")
    return Table(path, header, tuple(row for _, row in rows), tuple(line for line, _ in rows))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _label_column(found: Table, asked: str | None) -> int | None:
    if asked is not None and asked not in found.header:
        raise SampleMismatch(f"{found.path} has no column {asked!r}: --label-column names one of the header")
    name = asked or LABEL_COLUMN
    return found.header.index(name) if name in found.header else None


def _columns(found: Table, inputs: Sequence[Port], label: int | None) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    if len(inputs) > 1 or inputs[0].name in found.header or f"{inputs[0].name}.0" in found.header:
        return {port.name: _named(found, port.name) for port in inputs}, ()
    numeric = [c for c in range(len(found.header)) if c != label and _is_number(found.rows[0][c])]
    left = [name for c, name in enumerate(found.header) if c != label and c not in numeric]
    shown = ", ".join(left[:4])
    notes = (f"columns without numbers are left out: {shown}{', ...' if len(left) > 4 else ''}",) if left else ()
    return {inputs[0].name: numeric}, notes


def _named(found: Table, name: str) -> list[int]:
    if name in found.header:
        return [found.header.index(name)]
    columns: list[int] = []
    while (column := f"{name}.{len(columns)}") in found.header:
        columns.append(found.header.index(column))
    if not columns:
        raise SampleMismatch(
            f"{found.path} has no column for input {name!r}: name it {name}, or {name}.0, {name}.1, ..."
        )
    return columns


def _array(found: Table, port: Port, columns: Sequence[int]) -> Array:
    """Return [rows, 1, ...]: each row in the shape that the model takes."""
    numbers = np.array([[_number(found, row, column) for column in columns] for row in range(len(found.rows))])
    shape = (1, *(port.shape or (None, None))[1:])
    free = [axis for axis, size in enumerate(shape) if size is None]
    known = math.prod(size for size in shape if size is not None)
    whole = tuple(len(columns) // known if size is None else size for size in shape)
    if len(free) > 1 or math.prod(whole) != len(columns) or not columns:
        raise SampleMismatch(
            f"{found.path} has {len(columns)} numeric columns for {port.name!r}, which takes {written(shape)}"
        )
    return _typed(found, numbers, port).reshape(len(found.rows), *whole)


def _number(found: Table, row: int, column: int) -> float:
    cell = found.rows[row][column]
    where = f"{found.path} line {found.lines[row]}, column {found.header[column]!r}"
    if not _is_number(cell):
        raise SampleMismatch(f"{where}: {cell[:40]!r} is not a number" if cell else f"{where} is empty")
    number = float(cell)
    if not math.isfinite(number):
        raise SampleMismatch(f"{where} is {cell}: leave the row out")
    return number


def _typed(found: Table, numbers: Array, port: Port) -> Array:
    dtype = np.dtype(port.dtype)
    if np.issubdtype(dtype, np.floating):
        with np.errstate(over="ignore"):
            typed = numbers.astype(dtype)
        if not np.isfinite(typed).all():
            raise SampleMismatch(f"{found.path}: a number is too large for {port.dtype}, which {port.name!r} takes")
        return typed
    low, high = (0, 1) if dtype == np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if bool((numbers != np.rint(numbers)).any()) or bool((numbers < low).any()) or bool((numbers > high).any()):
        raise SampleMismatch(f"{found.path}: input {port.name!r} takes {port.dtype}, whole numbers {low} to {high}")
    return numbers.astype(dtype)
