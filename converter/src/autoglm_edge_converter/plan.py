"""The plan of a conversion: what will be done, resolved against one model and its samples, before anything is done.

Pure and printable; its dictionary goes into the bundle's provenance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoglm_edge_converter.inspection import WeightedNode
from autoglm_edge_converter.passes import PASSES
from autoglm_edge_converter.recipes import Recipe
from autoglm_edge_converter.split import Split

FP32, INT8 = "fp32", "int8"
PRECISIONS = (FP32, INT8)

RECIPES = (
    Recipe("min-max"),
    Recipe("percentile"),
    Recipe("min-max", equalise=True),
    Recipe("percentile", equalise=True),
    Recipe("min-max", per_channel=False),
)
"""Tried on the whole graph, all of them: which is best depends on the network, and each costs seconds."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides the result but the model and the samples themselves."""

    precisions: tuple[str, ...]
    max_drop: float
    seed: int
    parts: Split
    passes: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    nodes: tuple[str, ...]
    """Names, in the optimised graph, of the nodes worth quantizing; empty until it is known."""

    def to_dict(self) -> dict[str, object]:
        """Return the plan as JSON values."""
        return {
            "precisions": list(self.precisions),
            "max_drop": self.max_drop,
            "seed": self.seed,
            "samples": {
                "calibration": len(self.parts.calibration),
                "search": len(self.parts.search),
                "evaluation": len(self.parts.evaluation),
            },
            "passes": list(self.passes),
            "recipes": [str(recipe) for recipe in self.recipes],
        }

    def __str__(self) -> str:
        return "\n".join(
            [
                f"optimise   {', '.join(self.passes)}",
                f"quantize   {'; '.join(str(recipe) for recipe in self.recipes) or 'nothing'}",
                f"samples    {len(self.parts.calibration)} calibrate, {len(self.parts.search)} rank, "
                f"{len(self.parts.evaluation)} give the reported quality",
                f"budget     a drop of at most {self.max_drop:.2%}",
            ]
        )


def make_plan(
    precisions: Sequence[str], max_drop: float, seed: int, parts: Split, nodes: Sequence[WeightedNode]
) -> Plan:
    """Resolve the options against a model: one without weights worth quantizing gets no INT8 recipe."""
    wanted = tuple(name for name in PRECISIONS if name in precisions)
    return Plan(
        precisions=wanted,
        max_drop=max_drop,
        seed=seed,
        parts=parts,
        passes=tuple(PASSES),
        recipes=RECIPES if INT8 in wanted and nodes else (),
        nodes=tuple(node.name for node in nodes),
    )
