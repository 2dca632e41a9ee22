"""The golden set: a few inputs with the original model's outputs, and the comparison that decides.

The converter sets the tolerances with the same functions by which the device later judges, so both mean the same.
One of the few modules of this distribution that need numpy; a process that must stay light does not import it.

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
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import Tolerance

FLOOR_DB = -300.0
Array = npt.NDArray[Any]
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
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
    """Finite, in dB. None: identical. For integer and boolean outputs: not measured, None."""
    top1_agreement: float | None
    """None where the output has no rows of at least two numbers."""
    equal: float
    """Fraction of equal elements; NaN equals NaN."""
    finite: bool
    """False: NaN or infinity where the reference is finite, or another shape."""


@dataclass(frozen=True)
class Violation:
    """A tolerance that was not kept."""

    output: str
    message: str


def save(samples: Sequence[GoldenSample]) -> bytes:
    """Return the file of a golden set. Equal sets give equal bytes. Raises MalformedDocument when it is too large."""
    arrays: dict[str, Array] = {}
    for number, sample in enumerate(samples):
        arrays |= {f"{number}.in.{i}": array for i, array in enumerate(sample.inputs)}
        arrays |= {f"{number}.out.{i}": array for i, array in enumerate(sample.outputs)}
    buffer = io.BytesIO()
    # Not np.savez: its compressed form depends on the zlib in use, and the names must stay in order.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w") as file:
                np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
    if buffer.tell() > LIMITS.golden_bytes:
        raise MalformedDocument("golden set", f"{buffer.tell()} bytes, at most {LIMITS.golden_bytes} are accepted")
    return buffer.getvalue()


def load(path: Path) -> list[GoldenSample]:
    """Read a golden set of at least one sample. Raises MalformedDocument, OSError.

    Nothing that the file says of itself is believed: neither sizes nor shapes make it allocate more than the limit.
    """
    with path.open("rb") as file:
        data = file.read(LIMITS.golden_bytes + 1)
    if len(data) > LIMITS.golden_bytes:
        raise MalformedDocument("golden set", f"more than {LIMITS.golden_bytes} bytes")
    try:
        return _samples(_arrays(data))
    except Exception as error:  # on hostile bytes zipfile, zlib and numpy raise some twenty kinds
        raise MalformedDocument("golden set", str(error) or type(error).__name__) from None


def _arrays(data: bytes) -> dict[str, Array]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > LIMITS.golden_bytes:
            raise ValueError(f"unpacks to more than {LIMITS.golden_bytes} bytes")
        if len({entry.filename for entry in entries}) != len(entries):
            raise ValueError("two arrays have the same name")
        return {entry.filename.removesuffix(".npy"): _array(archive.read(entry)) for entry in entries}


def _array(data: bytes) -> Array:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"an array of the unknown format {version}")
    shape, fortran_order, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    body = data[file.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"an array of shape {shape} in {len(body)} bytes")
    found: Array = np.frombuffer(body, dtype).reshape(shape, order="F" if fortran_order else "C").copy()
    return found


def _samples(arrays: dict[str, Array]) -> list[GoldenSample]:
    samples: list[GoldenSample] = []
    used = 0
    while used < len(arrays):
        inputs, outputs = _side(arrays, len(samples), "in"), _side(arrays, len(samples), "out")
        samples.append(GoldenSample(inputs, outputs))
        used += len(inputs) + len(outputs)
    if not samples:
        raise ValueError("it holds no sample")
    return samples


def _side(arrays: dict[str, Array], sample: int, side: str) -> tuple[Array, ...]:
    found: list[Array] = []
    while (name := f"{sample}.{side}.{len(found)}") in arrays:
        found.append(arrays[name])
    if not found:
        raise ValueError(f"sample {sample} has no {side}puts")
    return tuple(found)


def compare(references: Sequence[Array], outputs: Sequence[Array]) -> OutputAgreement:
    """Compare one output of several samples with its references (arrays of any shape and numeric dtype)."""
    if any(r.shape != o.shape for r, o in zip(references, outputs, strict=True)):
        return OutputAgreement(None, None, 0.0, finite=False)
    equal = sum(_equal(r, o) for r, o in zip(references, outputs, strict=True))
    size = max(1, sum(r.size for r in references))
    if not references or not np.issubdtype(references[0].dtype, np.floating):
        return OutputAgreement(None, None, equal / size, finite=True)
    signal = noise = 0.0
    finite = True
    for reference, output in zip(references, outputs, strict=True):
        r, o = reference.astype(np.float64), output.astype(np.float64)
        usable = np.isfinite(r)
        finite = finite and bool(np.isfinite(o[usable]).all())
        with np.errstate(over="ignore"):  # of huge doubles; the sum is then infinite, which sqnr_db knows
            signal += float(np.square(r[usable]).sum())
            noise += float(np.square(r[usable] - np.nan_to_num(o[usable], posinf=0.0, neginf=0.0)).sum())
    return OutputAgreement(sqnr_db(signal, noise), _top1(references, outputs), equal / size, finite)


def _equal(reference: Array, output: Array) -> int:
    same = reference == output
    if np.issubdtype(reference.dtype, np.floating) and np.issubdtype(output.dtype, np.floating):
        same |= np.isnan(reference) & np.isnan(output)
    return int(np.count_nonzero(same))


def sqnr_db(signal: float, noise: float) -> float | None:
    """Return 10 log10(signal / noise) in dB for sums of squares; None when there is no noise.

    Never below `FLOOR_DB`: a document cannot hold an infinity, and noise over a reference of zeros would be one.
    """
    if noise <= 0:
        return None
    if signal <= 0 or not math.isfinite(noise):
        return FLOOR_DB
    return max(FLOOR_DB, 10 * (math.log10(signal) - math.log10(noise))) if math.isfinite(signal) else FLOOR_DB


def _top1(references: Sequence[Array], outputs: Sequence[Array]) -> float | None:
    rows = hits = 0
    for reference, output in zip(references, outputs, strict=True):
        if reference.ndim == 0 or reference.shape[-1] < 2 or reference.size == 0:
            continue
        r = np.nan_to_num(reference.reshape(-1, reference.shape[-1]), nan=-np.inf)
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

    `tolerances` are in the order of the outputs. Errors of `run` pass through. Raises MalformedDocument when the set
    is empty or has not one output for each tolerance: what compares nothing must not pass for agreement.
    """
    if not samples or any(len(sample.outputs) != len(tolerances) for sample in samples):
        raise MalformedDocument("golden set", f"it does not hold {len(tolerances)} outputs of at least one sample")
    answers = [tuple(run(sample.inputs)) for sample in samples]
    if wrong := next((answer for answer in answers if len(answer) != len(tolerances)), None):
        return [Violation("the whole", f"{len(wrong)} outputs instead of {len(tolerances)}")]
    violations = []
    for index, tolerance in enumerate(tolerances):
        references = [sample.outputs[index] for sample in samples]
        agreement = compare(references, [answer[index] for answer in answers])
        violation = judge(tolerance, agreement)
        if violation:
            violations.append(violation)
    return violations
