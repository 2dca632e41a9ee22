"""One metric for every output that it can judge; the figure is the worst output's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.laboratory import Answers
from autoglm_edge_converter.metrics.noise import channel_axis, fidelity, powers
from autoglm_edge_converter.metrics.rows import FIDELITY, TOP1, top1_shares
from autoglm_edge_converter.metrics.shares import Figure, Shares
from autoglm_edge_converter.tensors import Array


@dataclass(frozen=True)
class WorstOutput:
    """Judges by top-1 agreement or fidelity, whichever of them is asked for."""

    name: str

    def figure(self, references: Answers, answers: Answers, labels: Sequence[Array] | None, intervals: bool) -> Figure:
        """Return the worst output's agreement; labels are not used. Raises BadOption where no output is judged."""
        found = [self._shares(r, o) for r, o in _outputs(references, answers) if self._judges(r[0])]
        if not found:
            raise BadOption(f"no output of the model can be judged by {self.name}: use --metric auto")
        worst = min(found, key=lambda shares: shares.value)
        low, high = worst.interval() if intervals else (None, None)
        return Figure(self.name, worst.value, 1.0, low, high)

    def _judges(self, array: Array) -> bool:
        wide = self.name == FIDELITY or (array.ndim > 1 and array.shape[-1] > 1)
        return wide and bool(np.issubdtype(array.dtype, np.floating))

    def _shares(self, references: Sequence[Array], outputs: Sequence[Array]) -> Shares:
        if self.name == TOP1:
            return top1_shares(references, outputs)
        return fidelity(*powers(references, outputs, channel_axis(references)))


def _outputs(references: Answers, answers: Answers) -> list[tuple[list[Array], list[Array]]]:
    return [
        ([sample[number] for sample in references], [sample[number] for sample in answers])
        for number in range(len(references[0]))
    ]


TOP1_OF_ALL, FIDELITY_OF_ALL = WorstOutput(TOP1), WorstOutput(FIDELITY)
