"""Files that this machine cannot run as their targets do, and what stands in for them here.

A twin has the same integers, moved by a constant: signed activations are unsigned ones less 128, and signed weights are
unsigned ones less 128. Time is taken of a twin where the signs suit another kind of processor. Quality is taken of one
where the file's sums would saturate here and not on its targets; time does not depend on that.

TFLite's kernels know one kind of numbers, so no twin can be timed there. Where only the targets have instructions for a
file, its time here tells nothing of them: it is shipped for its answers, and the devices measure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autoglm_edge_converter.original import ONNX, TFLITE
from autoglm_edge_converter.recipes import DYNAMIC, INT8, STATIC, UINT8, Candidate
from autoglm_edge_converter.targets import Demands, Target, find_target


@dataclass(frozen=True)
class Kind:
    """What of a processor decides how 8-bit products go."""

    signed: bool
    """Signed activations are the faster ones."""
    saturates: bool
    """Sums of products with signed 8-bit weights saturate."""


@dataclass(frozen=True)
class Twins:
    """This machine, and what the files are for."""

    here: Kind
    there: Kind
    elsewhere: tuple[str, ...] = ()
    """Machines (`aarch64`, `x86_64`, ...) that files are for and that multiply 8-bit numbers in ways this one has not.

    XNNPACK's kernels are made for those: without them it is slower on 8 bits than in float."""

    def unknown_on(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the machines of which a time that was taken here does not tell."""
        return self.elsewhere if candidate.format == TFLITE and candidate.recipe.family == STATIC else ()

    def timed_as(self, candidate: Candidate) -> Candidate | None:
        """Return what is timed in a candidate's place, None where it is timed itself."""
        recipe, signed = candidate.recipe, self.here.signed
        if candidate.format != ONNX or recipe.family != STATIC or signed in (self.there.signed, recipe.signed):
            return None
        # No kernel multiplies signed activations by unsigned weights.
        weights = INT8 if signed and recipe.weights == UINT8 else recipe.weights
        return replace(candidate, recipe=replace(recipe, signed=signed, weights=weights))

    def judged_as(self, candidate: Candidate) -> Candidate | None:
        """Return what answers in a candidate's place, None where it answers itself."""
        if not (self.here.saturates and not self.there.saturates and may_saturate(candidate)):
            return None
        return replace(candidate, recipe=replace(candidate.recipe, signed=False, weights=UINT8))


def may_saturate(candidate: Candidate) -> bool:
    """Tell whether a candidate's sums saturate on processors that do so at all; TFLite's kernels never do."""
    recipe = candidate.recipe
    return candidate.format == ONNX and recipe.family in (STATIC, DYNAMIC) and recipe.weights == INT8


def twins_for(demands: Demands, own: Target) -> Twins:
    """Return the twins of files that these demands ask for, on a machine of its own kind."""
    # What saturates multiplies pairs of 8-bit numbers as if they were of 16.
    able = {target.architecture for target in map(find_target, demands.targets) if not target.saturates}
    elsewhere = tuple(sorted(able)) if own.saturates else ()
    return Twins(Kind(own.signed, own.saturates), Kind(demands.signed, demands.saturates), elsewhere)


NO_TWINS = Twins(Kind(False, False), Kind(False, False))
"""Everything is run as it is."""
