"""Files of a folder, in a fixed order, and the labels that their folders or a `labels.csv` give them."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_converter.data.classes import Numbered, number_classes
from autoglm_edge_converter.errors import NoSamples, SampleMismatch, UnreadableSample
from autoglm_edge_converter.limits import DATA_LIMITS
from autoglm_edge_protocol.digests import sha256_of, sha256_of_file

LABELS_FILE = "labels.csv"


@dataclass(frozen=True)
class Files:
    """Files of one kind below a root, or the single file that the root is."""

    root: Path
    paths: tuple[Path, ...]

    def name(self, index: int) -> str:
        """Return a file's path below the root, as people read it."""
        path = self.paths[index]
        return path.name if path == self.root else path.relative_to(self.root).as_posix()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all files."""
        return tuple(self.name(index) for index in range(len(self.paths)))

    def digest(self) -> str:
        """Return the SHA-256 of the names and digests of the files and of the labels. Raises OSError."""
        if self.paths == (self.root,):
            return sha256_of_file(self.root)
        lines = [f"{name} {sha256_of_file(path)}\n" for name, path in zip(self.names, self.paths, strict=True)]
        table = self.root / LABELS_FILE
        lines += [f"{LABELS_FILE} {sha256_of_file(table)}\n"] if table.is_file() else []
        return sha256_of("".join(lines).encode())


def find_files(root: Path, suffixes: Collection[str]) -> Files:
    """Return the files with one of the suffixes in a folder and the folders in it, sorted; hidden ones are left out.

    Raises NoSamples above the limit, OSError.
    """
    found: list[Path] = []
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            found.append(path)
            if len(found) > DATA_LIMITS.files:
                raise NoSamples(f"{root} holds more than {DATA_LIMITS.files} files: give a folder with fewer")
    return Files(root, tuple(sorted(found, key=lambda path: path.relative_to(root).as_posix())))


def labels_of(files: Files, class_names: Sequence[str] | None) -> Numbered | None:
    """Return the labels of the files: from `labels.csv`, else from the folders they are in; None where neither is.

    Raises SampleMismatch, UnreadableSample, OSError.
    """
    if files.paths == (files.root,):
        return None
    table = files.root / LABELS_FILE
    if table.is_file():
        return number_classes(_from_table(table, files.names), class_names)
    folders = [name.split("/")[0] if "/" in name else None for name in files.names]
    if folders and all(folder is not None for folder in folders) and len(set(folders)) > 1:
        return number_classes([folder or "" for folder in folders], class_names)
    return None


def _from_table(table: Path, names: Sequence[str]) -> list[str]:
    if table.stat().st_size > DATA_LIMITS.labels_bytes:
        raise UnreadableSample(f"{table} has more than {DATA_LIMITS.labels_bytes} bytes")
    labels: dict[str, str] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.reader(file, strict=True), 1):
                if len(row) != 2:
                    raise SampleMismatch(f"{table.name} line {number} has {len(row)} values, expected file,label")
                labels[row[0].strip().removeprefix("./")] = row[1]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableSample(f"{table} is not a CSV file in UTF-8 ({error}): give lines of file,label") from None
    missing = next((name for name in names if name not in labels), None)
    if missing is not None:
        raise SampleMismatch(f"{table.name} has no label for {missing!r}: add a line, or take the file away")
    return [labels[name] for name in names]
