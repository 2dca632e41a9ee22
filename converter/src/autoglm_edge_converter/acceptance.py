"""Acceptance: samples that ranked nothing, and the golden set, say yes or no to a candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from autoglm_edge_converter.choose import Limits, refuse_quality
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.formats import unfit
from autoglm_edge_converter.golden_set import tolerances_of
from autoglm_edge_converter.laboratory import Timing
from autoglm_edge_converter.measure import Form, measure_form
from autoglm_edge_converter.oldest import Oldest
from autoglm_edge_converter.results import Measured
from autoglm_edge_converter.targets import Demands
from autoglm_edge_converter.workbench import Workbench

VAGUE = "its answers on the golden set are so far off that damage could not be told from them"


@dataclass(frozen=True)
class Verdict:
    """What was measured of a candidate, None where that failed, and why it is refused, None where it is not."""

    measured: Measured | None
    refusal: str | None


@dataclass(frozen=True)
class Acceptance:
    """What a candidate has to pass. The golden set is one for all of them."""

    bench: Workbench
    limits: Limits
    demands: Demands
    golden: tuple[int, ...]
    oldest: Oldest = field(default_factory=Oldest)

    def judge(self, form: Form, timings: Mapping[str, Timing]) -> Verdict:
        """Measure a form on the acceptance samples and refuse it where it breaks a limit. Raises OSError."""
        try:
            found = measure_form(form, self.bench, timings, self.bench.parts.acceptance)
            found = replace(found, accepted=found.quality)
            return Verdict(found, self._refuse(found))
        except CandidateFailed as error:
            return Verdict(None, f"it fails when it is measured: {error}")

    def refuse_by_targets(self, found: Measured) -> str | None:
        """Return why the targets cannot load a form or have no memory for it, None where they can. Raises OSError."""
        by_table = unfit(found.path, found.memory_bytes, self.demands)
        return by_table or self.oldest.refuse(found.path, self.bench, self.golden)

    def _refuse(self, found: Measured) -> str | None:
        refusal = refuse_quality(found.quality, self.limits.max_drop)
        refusal = refusal or self.refuse_by_targets(found)
        if refusal is None and tolerances_of(found, self.bench, self.golden) is None:
            return VAGUE
        return refusal
