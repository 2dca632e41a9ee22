from __future__ import annotations

import contextlib
import io
import math
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_edge_protocol.errors import MalformedDocument
from autoglm_edge_protocol.golden import (
    FLOOR_DB,
    Array,
    GoldenSample,
    OutputAgreement,
    compare,
    judge,
    load,
    replay,
    save,
    sqnr_db,
)
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import Tolerance

NAN, INF = float("nan"), float("inf")
DTYPES = ("float32", "float64", "float16", "int8", "uint8", "int64", "bool", "<U5")


def _f(*values: Any) -> Array:
    return np.array(values, np.float32)


def _sample(dtype: str, shape: tuple[int, ...]) -> GoldenSample:
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    return GoldenSample((array, np.asfortranarray(array)), (array[..., ::-1] if shape else array,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 3), (2, 3, 4, 5)])
def test_a_golden_set_survives_the_file_byte_for_byte(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    samples = [_sample(dtype, shape), _sample("float32", (7,))]
    path = tmp_path / "golden.npz"
    path.write_bytes(save(samples))
    loaded = load(path)
    assert save(loaded) == path.read_bytes() == save(samples)
    for a, b in zip(samples, loaded, strict=True):
        for left, right in zip(a.inputs + a.outputs, b.inputs + b.outputs, strict=True):
            assert left.dtype == right.dtype
            assert right.flags.writeable
            np.testing.assert_array_equal(left, right)
    with np.load(path, allow_pickle=False) as archive:  # the format is numpy's own
        np.testing.assert_array_equal(archive["0.in.0"], samples[0].inputs[0])


def _zip(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _npy(array: Array, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def _with_header(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('a pickle was loaded')",))


ONE = _npy(_f(1.0))
HUGE = _with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }")
HOSTILE = {
    "empty": b"",
    "no archive": b"PK\x03\x04 but no more",
    "a single array": ONE,
    "a pickle": pickle.dumps([1]),
    "no arrays": _zip({}),
    "a pickle inside": _zip({"0.in.0.npy": _npy(np.array([Bomb()], object), allow_pickle=True), "0.out.0.npy": ONE}),
    "a text inside": _zip({"0.in.0.npy": b"hello", "0.out.0.npy": ONE}),
    "only inputs": _zip({"0.in.0.npy": ONE}),
    "a sample missing": _zip({"1.in.0.npy": ONE, "1.out.0.npy": ONE}),
    "a negative sample": _zip({"-1.in.0.npy": ONE, "-1.out.0.npy": ONE}),
    "an array that nobody uses": _zip({"0.in.0.npy": ONE, "0.out.0.npy": ONE, "0.in.2.npy": ONE}),
    "a huge shape": _zip({"0.in.0.npy": HUGE, "0.out.0.npy": ONE}),
    "a negative shape": _zip({"0.in.0.npy": _with_header("{'descr':'<f4','fortran_order':False,'shape':(-1,)}")}),
    "too many bytes": _zip({"0.in.0.npy": ONE + b"x", "0.out.0.npy": ONE}),
    "a header that is code": _zip({"0.in.0.npy": _with_header("__import__('os').abort()")}),
    "a nested header": _zip({"0.in.0.npy": _with_header("(" * 110)}),
    "an unknown version": _zip({"0.in.0.npy": b"\x93NUMPY\x09\x00" + b"\0" * 20}),
    "a bomb": _zip({"0.in.0.npy": bytes(LIMITS.golden_bytes + 1), "0.out.0.npy": ONE}, zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "golden.npz"
    path.write_bytes(data)
    with pytest.raises(MalformedDocument):
        load(path)


def test_files_and_sets_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    with path.open("wb") as file:
        file.truncate(LIMITS.golden_bytes + 1)
    with pytest.raises(MalformedDocument, match="more than"):
        load(path)
    large = np.zeros(LIMITS.golden_bytes, np.uint8)
    with pytest.raises(MalformedDocument, match="at most"):
        save([GoldenSample((large,), (large[:1],))])
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing")


def test_truncated_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    whole = save([GoldenSample((_f(1, 2),), (_f(3),))])
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(MalformedDocument):
            load(path)


@settings(max_examples=200)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_any_changed_byte_loads_or_is_malformed(position: int, value: int, tmp_path_factory: Any) -> None:
    data = bytearray(save([GoldenSample((_f(1, 2),), (_f(3),))]))
    data[position % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "changed.npz"
    path.write_bytes(data)
    with contextlib.suppress(MalformedDocument):
        assert len(load(path)) == 1


IDENTICAL = (
    [_f(1, 2)],
    [_f(0, 0)],
    [_f(NAN, 1, INF, -INF)],
    [np.array([[1, 2]], np.int32)],
    [np.array(True)],
    [np.float32(3) * np.ones(())],
    [np.zeros((0, 4), np.float32)],
    [np.array(["a", "b"])],
    [np.array([1e300, -1e300])],
    [_f(1, 2), np.zeros((0, 2), np.float32)],
)


@pytest.mark.parametrize("arrays", IDENTICAL)
def test_identical_outputs_keep_every_tolerance_that_can_be_measured(arrays: list[Array]) -> None:
    found = compare(arrays, [array.copy() for array in arrays])
    assert found.finite
    assert found.sqnr_db is None
    assert found.top1_agreement in (None, 1.0)
    assert found.equal == (1.0 if sum(a.size for a in arrays) else 0.0)
    assert judge(Tolerance(output="y", min_sqnr_db=200.0), found) is None


# (references, outputs) -> (sqnr_db, top1, equal, finite). SQNR to 1e-6 dB: one rounding of a double's sum each.
COMPARISONS: list[tuple[list[Array], list[Array], tuple[float | None, float | None, float, bool]]] = [
    ([_f(3, 4)], [_f(3, 4.5)], (20.0, 1.0, 0.5, True)),
    ([_f(1, 2)], [_f(2, 1)], (10 * math.log10(5 / 2), 0.0, 0.0, True)),
    ([_f(0, 0)], [_f(0, 1)], (FLOOR_DB, 0.0, 0.5, True)),
    ([_f(1, 2)], [_f(1, NAN)], (10 * math.log10(5 / 4), 0.0, 0.5, False)),
    ([_f(1, 2)], [_f(INF, 2)], (10 * math.log10(5 / 1), 0.0, 0.5, False)),
    ([_f(NAN, 2)], [_f(7, 2)], (None, 0.0, 0.5, True)),
    ([_f(1, 2)], [_f(1, 2, 3)], (None, None, 0.0, False)),
    ([_f(1, 2)], [np.float32(1) * np.ones((2, 1))], (None, None, 0.0, False)),
    ([np.array([1, 2, 3])], [np.array([1, 2, 4])], (None, None, 2 / 3, True)),
    ([np.array([True, False])], [np.array([True, True])], (None, None, 0.5, True)),
    ([np.ones(())], [np.ones(()) * 1.1], (20.0, None, 0.0, True)),
    ([_f(1, 2), _f(5)], [_f(1, 2), _f(5)], (None, 1.0, 1.0, True)),
    ([np.array([1e300, 1.0])], [np.array([-1e300, 1.0])], (FLOOR_DB, 0.0, 0.5, True)),
    ([], [], (None, None, 0.0, True)),
]


@pytest.mark.parametrize(("references", "outputs", "expected"), COMPARISONS)
def test_comparisons(
    references: Sequence[Array], outputs: Sequence[Array], expected: tuple[float | None, float | None, float, bool]
) -> None:
    found = compare(references, outputs)
    sqnr, top1, equal, finite = expected
    assert found.sqnr_db == (None if sqnr is None else pytest.approx(sqnr, abs=1e-6))
    assert (found.top1_agreement, found.finite) == (top1, finite)
    assert found.equal == pytest.approx(equal)


@given(st.floats(0, 1e308), st.floats(0, 1e308) | st.just(INF))
def test_sqnr_is_none_or_finite(signal: float, noise: float) -> None:
    found = sqnr_db(signal, noise)
    assert (found is None) == (noise == 0)
    assert found is None or (math.isfinite(found) and found >= FLOOR_DB)


AGREEMENT = OutputAgreement(sqnr_db=30.0, top1_agreement=0.9, equal=0.5, finite=True)


@pytest.mark.parametrize(
    ("limits", "agreement", "message"),
    [
        ({}, AGREEMENT, None),
        ({"min_sqnr_db": 30.0, "min_top1_agreement": 0.9, "min_equal": 0.5}, AGREEMENT, None),
        ({"min_sqnr_db": 30.1}, AGREEMENT, "30.0 dB to the reference, at least 30.1 needed"),
        ({"min_top1_agreement": 0.95}, AGREEMENT, "90.0% of the top answers agree, at least 95.0% needed"),
        ({"min_equal": 0.6}, AGREEMENT, "50.0% of the elements are equal, 60.0% needed"),
        ({"min_top1_agreement": 0.1}, OutputAgreement(None, None, 1.0, True), "0.0% of the top answers"),
        ({"min_sqnr_db": 99.0}, OutputAgreement(None, None, 1.0, True), None),
        ({}, OutputAgreement(None, None, 0.0, False), "NaN, infinity or another shape"),
    ],
)
def test_judgement(limits: dict[str, float], agreement: OutputAgreement, message: str | None) -> None:
    violation = judge(Tolerance(output="y", **limits), agreement)
    assert (violation is None) == (message is None)
    assert violation is None or (violation.output == "y" and message is not None and message in violation.message)


SAMPLES = [GoldenSample((_f(1, 2),), (_f(2, 4), np.array([1]))), GoldenSample((_f(3, 1),), (_f(6, 2), np.array([3])))]
TOLERANCES = [Tolerance(output="y", min_sqnr_db=40.0), Tolerance(output="k", min_equal=1.0)]


def test_replay_judges_each_output_by_its_own_tolerance() -> None:
    assert replay(SAMPLES, TOLERANCES, lambda x: (x[0] * 2, x[0][:1].astype(int))) == []
    wrong = replay(SAMPLES, TOLERANCES, lambda x: (x[0] * 2, x[0][:1].astype(int) + 1))
    assert [violation.output for violation in wrong] == ["k"]
    both = replay(SAMPLES, TOLERANCES, lambda x: (x[0] * NAN, x[0]))
    assert [violation.output for violation in both] == ["y", "k"]


def test_replay_never_passes_what_it_cannot_compare() -> None:
    assert "1 outputs instead of 2" in replay(SAMPLES, TOLERANCES, lambda x: (x[0] * 2,))[0].message
    for samples, tolerances in (([], TOLERANCES), (SAMPLES, []), (SAMPLES, TOLERANCES[:1])):
        with pytest.raises(MalformedDocument):
            replay(samples, tolerances, lambda x: (x[0] * 2, x[0]))


def test_errors_of_the_model_pass_through() -> None:
    def run(_: Sequence[Array]) -> Sequence[Array]:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        replay(SAMPLES, TOLERANCES, run)
