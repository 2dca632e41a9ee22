"""What a candidate is: a recipe, and the nodes that it keeps in float."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How activations and weights get their ranges."""

    ranges: str
    """A key of `ranges.RANGES`."""
    per_channel: bool = True
    equalise: bool = False
    """Scale channels alike first (see `equalise`)."""

    def __str__(self) -> str:
        parts = [self.ranges, "per channel" if self.per_channel else "per tensor"]
        return ", ".join([*parts, "equalised"] if self.equalise else parts)


@dataclass(frozen=True)
class Candidate:
    """A recipe resolved against one model: everything quantized but the weighted nodes named here."""

    recipe: Recipe
    float_nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.float_nodes:
            return f"INT8 ({self.recipe})"
        return f"INT8 ({self.recipe}), {len(self.float_nodes)} in float"
