"""The oldest runtimes of the targets, made ready once for a conversion, and what they say of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoglm_edge_converter.cache import Cache, NoCache
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.formats import format_of
from autoglm_edge_converter.oldest_runtime import (
    MOST_SAMPLES,
    OldRuntime,
    check_in_oldest,
    least_sqnr_db,
    ready_runtime,
)
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.targets import Demands
from autoglm_edge_converter.workbench import Workbench


@dataclass(frozen=True)
class Oldest:
    """Runtimes by format. Without any nothing is refused."""

    runtimes: tuple[tuple[str, OldRuntime], ...] = ()
    cache: Cache = field(default_factory=NoCache)

    def refuse(self, path: Path, bench: Workbench, samples: Sequence[int]) -> str | None:
        """Return what is wrong with a file in one of the runtimes, None where nothing is. Raises OSError."""
        mine = [old for form, old in self.runtimes if form == format_of(path) and old.python is not None]
        few = samples[:MOST_SAMPLES]
        if not mine or not few:
            return None
        feeds = [bench.feeds[index] for index in few]
        try:
            expected = bench.laboratory.run(path, few)
            least_db = least_sqnr_db(bench.compare(path, few).sqnr_db)
        except CandidateFailed as error:
            return f"it fails when it is run: {error}"
        for old in mine:
            verdict = check_in_oldest(path, old, feeds, expected, bench.scratch, self.cache, least_db=least_db)
            if verdict.problem is not None:
                return f"the oldest runtime of the targets cannot use it: {verdict.problem}"
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """Return which runtimes could not be had, so that tables alone have judged."""
        return tuple(
            f"{old.runtime.name} {old.runtime.oldest} was not run, its table of operators was asked: {old.problem}"
            for _, old in self.runtimes
            if old.python is None
        )

    def ran(self, path: Path) -> tuple[str, ...]:
        """Return the runtimes that a file of this format is run in, `onnxruntime 1.17`."""
        mine = [old for form, old in self.runtimes if form == format_of(path) and old.python is not None]
        return tuple(f"{old.runtime.name} {old.runtime.oldest}" for old in mine)


def ready_oldest(demands: Demands, wanted: bool, cache: Cache, progress: Progress) -> Oldest:
    """Make the oldest runtimes of the targets ready, as far as they can be had. None is made where none is wanted."""
    if not wanted:
        return Oldest()
    return Oldest(tuple((form, ready_runtime(runtime, progress)) for form, runtime in demands.oldest), cache)
