"""Class numbers from what labels are written as: numbers, or names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoglm_edge_converter.errors import BadOption, SampleMismatch
from autoglm_edge_converter.tensors import Array


@dataclass(frozen=True)
class Numbered:
    """Labels as class numbers, one int64 [1] for each sample."""

    labels: tuple[Array, ...]
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Of the classes by number, where the samples alone named them."""


def number_classes(written: Sequence[str], class_names: Sequence[str] | None) -> Numbered:
    """Turn labels as written into class numbers.

    Whole numbers are taken as they are; names by their line in the file of class names; without that file by their
    alphabetical order, which a note tells. Raises SampleMismatch for a name that the file has not.
    """
    texts = [text.strip() for text in written]
    if class_names is not None and set(texts) <= set(class_names):
        order = {name: number for number, name in enumerate(class_names)}
        return Numbered(_arrays([order[text] for text in texts]))
    if all(_is_number(text) for text in texts):
        return Numbered(_arrays([int(text) for text in texts]))
    if class_names is not None:
        missing = next(text for text in texts if text not in set(class_names))
        raise SampleMismatch(f"label {missing!r} is not in the file given with --labels, which names every class")
    found = sorted(set(texts))
    order = {name: number for number, name in enumerate(found)}
    few = ", ".join(f"{number} {name}" for name, number in list(order.items())[:4])
    note = (
        f"classes are numbered by name ({few}{', ...' if len(found) > 4 else ''}): if the model's differ, give --labels"
    )
    return Numbered(_arrays([order[text] for text in texts]), (note,), tuple(found))


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 10


def _arrays(numbers: Sequence[int]) -> tuple[Array, ...]:
    return tuple(np.array([number], np.int64) for number in numbers)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the lines of the file given with --labels. Raises BadOption, OSError."""
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError:
        raise BadOption(f"{path} is not UTF-8 text: give one label a line") from None
