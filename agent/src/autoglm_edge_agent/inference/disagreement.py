"""How far two models' answers to the same input differ, with the comparison that also judges the golden set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from autoglm_edge_protocol import golden
from autoglm_edge_protocol.manifest import Tolerance, Variant

Array = npt.NDArray[Any]


class Comparison:
    """Compares the answers of two variants, output by output, by name.

    Outputs are class scores where one of the two manifests judges them by their largest entry. Of these the share of
    rows counts whose largest entry is another one; any other output differs as a whole or not at all.
    """

    def __init__(self, old: Variant, new: Variant, min_sqnr_db: float) -> None:
        names = {output.name for output in old.outputs}
        self._new = [output.name for output in new.outputs]
        self._old = [output.name for output in old.outputs]
        self.outputs = [name for name in self._new if name in names]
        """Those that both have; with none there is nothing to compare."""
        judged = (*old.tolerances, *new.tolerances)
        self._scores = {tolerance.output for tolerance in judged if tolerance.min_top1_agreement is not None}
        self._min_sqnr_db = min_sqnr_db

    def difference(self, old: Sequence[Array], new: Sequence[Array]) -> float:
        """Return how far the answers differ, from 0 (the same) to 1; of several outputs the worst one counts."""
        before, after = dict(zip(self._old, old, strict=True)), dict(zip(self._new, new, strict=True))
        return max((self._output(name, before, after) for name in self.outputs), default=0.0)

    def _output(self, name: str, before: Mapping[str, Array], after: Mapping[str, Array]) -> float:
        agreement = golden.compare([before[name]], [after[name]])
        if not agreement.finite:
            return 1.0
        if name in self._scores and agreement.top1_agreement is not None:
            return 1.0 - agreement.top1_agreement
        if agreement.sqnr_db is None:
            return 1.0 - agreement.equal
        return 1.0 if golden.judge(Tolerance(output=name, min_sqnr_db=self._min_sqnr_db), agreement) else 0.0
