"""Running a variant in the oldest version of a runtime that a target supports: does it load, does it answer alike?

Operator tables say what a version should read; running it there tells. The version lives in an isolated environment
(see `environments`) and the model runs in a process of its own, on this machine's processor. Where the environment
cannot be made, the table's word stands and the verdict says that nothing was run.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from autoglm_edge_converter.cache import Cache, NoCache
from autoglm_edge_converter.environments import ENVIRONMENTS, ready_environment
from autoglm_edge_converter.errors import EnvironmentUnavailable
from autoglm_edge_converter.operators import libraries_in_use
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.targets import Runtime
from autoglm_edge_converter.tensors import Array, Feed
from autoglm_edge_converter.tolerance import LOOSEST_SQNR_DB
from autoglm_edge_protocol.digests import sha256_of, sha256_of_file
from autoglm_edge_protocol.golden import OutputAgreement, compare

MOST_SAMPLES = 4
LEAST_SQNR_DB = 20.0
"""Old and new kernels round 8-bit products differently: as much noise as quantizing made, 25 to 40 dB, and no more."""
APART_DB = 4.0
"""Answers that are both so far from the original's are twice as far, by power, from one another: 3 dB, which few
samples tell to within one."""
LEAST_EQUAL = 7 / 8
"""Of the elements of an integer or boolean output; the rest may have fallen to the other side of a border."""
_SAME = 1e-5
"""Largest difference that is none, for outputs that are zero throughout."""
_RUNNING_S = 180.0

_PREAMBLE = re.compile(
    r"^(\[ONNXRuntimeError\] : \d+ : \w+ : )?(Load model from .*? failed:)?\s*(/onnxruntime_src/.*?\) (?=[A-Z]))?"
    r"(ONNX Runtime only \*guarantees\* .*? versions\. )?"
)
"""What ONNX Runtime says before it comes to the point: a code, our path, its source and function, a reminder."""

_PROGRAM = Path("isolated") / "programs" / "old_runtime.py"


@dataclass(frozen=True)
class OldRuntime:
    """The oldest supported version of a runtime, and the interpreter that has it."""

    runtime: Runtime
    python: Path | None
    problem: str | None = None
    """Why it cannot be run here: one line that says what to do."""


@dataclass(frozen=True)
class Verdict:
    """What became of a variant in the oldest version of a runtime."""

    runtime: str
    """`onnxruntime 1.17`."""
    ran: bool
    """False: only a table was asked, and `note` says why."""
    problem: str | None
    """Why the variant cannot be used there; None: nothing speaks against it."""
    note: str | None = None


def ready_runtime(runtime: Runtime, progress: Progress | None = None) -> OldRuntime:
    """Return a runtime that can be run, its environment made when it is missing; why not, where it cannot be had."""
    name = f"{runtime.name}-{runtime.oldest}"
    if name not in ENVIRONMENTS:
        return OldRuntime(runtime, None, f"no packages are locked for {runtime.name} {runtime.oldest}")
    try:
        return OldRuntime(runtime, ready_environment(name, progress))
    except EnvironmentUnavailable as error:
        return OldRuntime(runtime, None, str(error))


def check_in_oldest(
    path: Path,
    old: OldRuntime,
    feeds: Sequence[Feed],
    expected: Sequence[Sequence[Array]],
    scratch: Path,
    cache: Cache | None = None,
    by_table: str | None = None,
    least_db: float = LEAST_SQNR_DB,
) -> Verdict:
    """Run a variant's file in an old runtime and compare with what the current one answers. Raises OSError.

    `expected` are the variant's own outputs in the current runtime, a sequence per feed, in the model's order; the
    first few feeds are used. `least_db`: how near float outputs have to be to them. `by_table` is what a table of
    operators says against the file, None for nothing. Answers are kept in the cache by the content of the file, the
    feeds and the environment.
    """
    name = f"{old.runtime.name} {old.runtime.oldest}"
    if old.python is None:
        return Verdict(name, False, by_table, f"not run in {name}, judged by its table of operators: {old.problem}")
    cache = cache or NoCache()
    feeds, expected = feeds[:MOST_SAMPLES], expected[:MOST_SAMPLES]
    key = f"{_key(path, old, feeds, expected)} {least_db:.1f}"
    known = cache.get(key)
    if known is not None:
        return Verdict(**json.loads(known))
    try:
        problem = _run(path, old, feeds, expected, scratch, least_db)
    except subprocess.TimeoutExpired:
        # Not kept: this machine may have been busy.
        return Verdict(name, True, f"{name} does not answer {len(feeds)} samples here within {_RUNNING_S:.0f} s")
    verdict = Verdict(name, True, f"{name} (on this machine): {problem}" if problem else None)
    cache.put(key, json.dumps(asdict(verdict)).encode())
    return verdict


def _key(path: Path, old: OldRuntime, feeds: Sequence[Feed], expected: Sequence[Sequence[Array]]) -> str:
    arrays = [array for feed in feeds for _, array in sorted(feed.items())]
    arrays += [array for outputs in expected for array in outputs]
    data = sha256_of(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))
    assert old.python is not None
    libraries = [sha256_of_file(Path(library)) for library in libraries_in_use()]
    program = sha256_of_file(_program())
    return " ".join(["oldest", program, old.python.parent.parent.name, sha256_of_file(path), data, *libraries])


def _program() -> Path:
    return Path(str(files("autoglm_edge_converter"))) / _PROGRAM


def least_sqnr_db(noise_db: float | None) -> float:
    """Return how near a variant's answers in two runtimes have to be, when it is so far from the original in one."""
    return LEAST_SQNR_DB if noise_db is None else min(LEAST_SQNR_DB, max(LOOSEST_SQNR_DB, noise_db - APART_DB))


def _run(
    path: Path,
    old: OldRuntime,
    feeds: Sequence[Feed],
    expected: Sequence[Sequence[Array]],
    scratch: Path,
    least_db: float,
) -> str | None:
    """Return what is wrong with the variant there, None where nothing is. Raises TimeoutExpired, OSError."""
    samples, answers, request = (scratch / f"oldest.{end}" for end in ("samples.npz", "answers.npz", "request.json"))
    arrays = {f"{index}.{name}": array for index, feed in enumerate(feeds) for name, array in feed.items()}
    np.savez(samples, allow_pickle=False, **arrays)
    answers.unlink(missing_ok=True)
    document = {"runtime": old.runtime.name, "model": str(path), "samples": str(samples), "answers": str(answers)}
    request.write_text(json.dumps(document | {"libraries": list(libraries_in_use())}), encoding="utf-8")
    said = _ask(old, request)
    if "error" in said:
        return _PREAMBLE.sub("", str(said["error"]), count=1)[:300]
    with np.load(answers, allow_pickle=False) as archive:
        found = [[archive[f"{at}.{number}"] for number in range(int(said["outputs"]))] for at in range(len(feeds))]
    return difference(expected, found, least_db)


def _ask(old: OldRuntime, request: Path) -> dict[str, str | int]:
    command = [str(old.python), "-I", str(_program()), str(request)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_RUNNING_S, check=False)
    with suppress(ValueError, IndexError):
        said: dict[str, str | int] = json.loads(done.stdout.splitlines()[-1])
        return said
    if done.returncode < 0:
        return {"error": f"the process was ended by signal {-done.returncode}"}
    return {"error": (done.stderr.strip().splitlines() or [f"the process ended with code {done.returncode}"])[-1][:300]}


def difference(
    expected: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]], least_db: float = LEAST_SQNR_DB
) -> str | None:
    """Return how answers of two runtimes differ beyond the rounding of their kernels, None where they do not.

    Both are outputs by sample, in the model's order, of any numeric dtype.
    """
    if any(len(ours) != len(theirs) for ours, theirs in zip(expected, found, strict=True)):
        return f"it gives {len(found[0])} outputs, not {len(expected[0])}"
    for number in range(len(expected[0]) if expected else 0):
        ours = [outputs[number] for outputs in expected]
        theirs = [outputs[number] for outputs in found]
        if ours[0].dtype in (np.int8, np.uint8):
            ours, theirs = _centred(ours, theirs)
        wrong = None if _equal(ours, theirs) else _wrong(compare(ours, theirs), ours[0], least_db)
        if wrong is not None:
            return f"output {number} {wrong}"
    return None


def _centred(ours: Sequence[Array], theirs: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """8-bit numbers are quantized reals: the noise in them counts, beside what varies, not whether they are equal."""
    middle = np.float32(np.mean([array.mean() for array in ours]))
    return [array.astype(np.float32) - middle for array in ours], [
        array.astype(np.float32) - middle for array in theirs
    ]


def _equal(ours: Sequence[Array], theirs: Sequence[Array]) -> bool:
    return all(
        r.shape == o.shape and r.dtype.kind == "f" and np.allclose(r, o, rtol=0, atol=_SAME, equal_nan=True)
        for r, o in zip(ours, theirs, strict=True)
    )


def _wrong(agreement: OutputAgreement, like: Array, least_db: float) -> str | None:
    if not agreement.finite:
        return "is NaN, infinite or of another shape"
    if like.dtype.kind == "f":
        noise = agreement.sqnr_db
        low = noise is not None and noise < least_db
        return f"is {noise:.1f} dB from that of the current runtime" if low else None
    return (
        f"has {agreement.equal:.1%} of its elements as the current runtime" if agreement.equal < LEAST_EQUAL else None
    )
