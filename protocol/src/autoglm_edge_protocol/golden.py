"""The golden set: a few inputs with the original model's outputs, and the comparison that decides.

The converter sets the tolerances with the same functions by which the device later judges, so both mean the same.
The only module of this distribution that needs numpy; a process that must stay light does not import it.

File format: `golden/golden.npz`, arrays named `SAMPLE.in.I` and `SAMPLE.out.I`, SAMPLE and I from 0, in the order of
the variant's inputs and outputs. Each array has the whole shape that the model takes, batch axis included.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_protocol.errors import MalformedDocument
from autoglm_edge_protocol.manifest import Tolerance

Array = npt.NDArray[Any]
Run = Callable[[Sequence[Array]], Sequence[Array]]
"""Runs a model once: inputs in the order of the manifest, outputs likewise."""


@dataclass(frozen=True)
class GoldenSample:
    """One input of the model and what the original answered."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


@dataclass(frozen=True)
class OutputAgreement:
    """How one output compares with its reference over a set of samples."""

    sqnr_db: float | None
    """None: identical. For integer and boolean outputs: not measured, None."""
    top1_agreement: float | None
    """None where the output has no rows of at least two numbers."""
    equal: float
    """Fraction of equal elements."""
    finite: bool
    """False: NaN or infinity where the reference is finite, or another shape."""


@dataclass(frozen=True)
class Violation:
    """A tolerance that was not kept."""

    output: str
    message: str


def save(samples: Sequence[GoldenSample]) -> bytes:
    """Return the file of a golden set. Equal sets give equal bytes."""
    arrays: dict[str, Array] = {}
    for number, sample in enumerate(samples):
        arrays |= {f"{number}.in.{i}": array for i, array in enumerate(sample.inputs)}
        arrays |= {f"{number}.out.{i}": array for i, array in enumerate(sample.outputs)}
    buffer = io.BytesIO()
    # Not np.savez: its compressed form depends on the zlib in use, and the names must stay in order.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def load(path: Path) -> list[GoldenSample]:
    """Read a golden set. Raises MalformedDocument, OSError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        count = 1 + max(int(name.split(".")[0]) for name in arrays)
        return [GoldenSample(_side(arrays, i, "in"), _side(arrays, i, "out")) for i in range(count)]
    except (ValueError, KeyError, IndexError, zipfile.BadZipFile, EOFError) as error:
        raise MalformedDocument("golden set", str(error) or type(error).__name__) from None


def _side(arrays: dict[str, Array], sample: int, side: str) -> tuple[Array, ...]:
    found: list[Array] = []
    while (name := f"{sample}.{side}.{len(found)}") in arrays:
        found.append(arrays[name])
    if not found:
        raise KeyError(f"sample {sample} has no {side}puts")
    return tuple(found)


def compare(references: Sequence[Array], outputs: Sequence[Array]) -> OutputAgreement:
    """Compare one output of several samples with its references (arrays of any shape and numeric dtype)."""
    if any(r.shape != o.shape for r, o in zip(references, outputs, strict=True)):
        return OutputAgreement(None, None, 0.0, finite=False)
    equal = sum(int(np.count_nonzero(r == o)) for r, o in zip(references, outputs, strict=True))
    size = max(1, sum(r.size for r in references))
    if not references or not np.issubdtype(references[0].dtype, np.floating):
        return OutputAgreement(None, None, equal / size, finite=True)
    signal = noise = 0.0
    finite = True
    for reference, output in zip(references, outputs, strict=True):
        r, o = reference.astype(np.float64), output.astype(np.float64)
        usable = np.isfinite(r)
        finite = finite and bool(np.isfinite(o[usable]).all())
        signal += float(np.square(r[usable]).sum())
        noise += float(np.square(r[usable] - np.nan_to_num(o[usable])).sum())
    return OutputAgreement(sqnr_db(signal, noise), _top1(references, outputs), equal / size, finite)


def sqnr_db(signal: float, noise: float) -> float | None:
    """Return 10 log10(signal / noise) in dB for sums of squares; None when there is no noise."""
    if noise <= 0:
        return None
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _top1(references: Sequence[Array], outputs: Sequence[Array]) -> float | None:
    rows = hits = 0
    for reference, output in zip(references, outputs, strict=True):
        if reference.ndim == 0 or reference.shape[-1] < 2 or reference.size == 0:
            return None
        r = reference.reshape(-1, reference.shape[-1])
        o = np.nan_to_num(output.reshape(-1, output.shape[-1]), nan=-np.inf)
        rows += len(r)
        hits += int(np.count_nonzero(r.argmax(axis=1) == o.argmax(axis=1)))
    return hits / rows if rows else None


def judge(tolerance: Tolerance, agreement: OutputAgreement) -> Violation | None:
    """Return how `agreement` breaks `tolerance`, None when it keeps it."""
    if not agreement.finite:
        return Violation(tolerance.output, "NaN, infinity or another shape")
    low = tolerance.min_sqnr_db
    if low is not None and agreement.sqnr_db is not None and agreement.sqnr_db < low:
        return Violation(tolerance.output, f"{agreement.sqnr_db:.1f} dB to the reference, at least {low:.1f} needed")
    low = tolerance.min_top1_agreement
    if low is not None and (agreement.top1_agreement is None or agreement.top1_agreement < low):
        found = agreement.top1_agreement or 0.0
        return Violation(tolerance.output, f"{found:.1%} of the top answers agree, at least {low:.1%} needed")
    low = tolerance.min_equal
    if low is not None and agreement.equal < low:
        return Violation(tolerance.output, f"{agreement.equal:.1%} of the elements are equal, {low:.1%} needed")
    return None


def replay(samples: Sequence[GoldenSample], tolerances: Sequence[Tolerance], run: Run) -> list[Violation]:
    """Run the golden set and return what is out of tolerance; an empty list means agreement.

    `tolerances` are in the order of the outputs. Errors of `run` pass through.
    """
    answers = [tuple(run(sample.inputs)) for sample in samples]
    violations = []
    for index, tolerance in enumerate(tolerances):
        references = [sample.outputs[index] for sample in samples]
        agreement = compare(references, [answer[index] for answer in answers])
        violation = judge(tolerance, agreement)
        if violation:
            violations.append(violation)
    return violations
