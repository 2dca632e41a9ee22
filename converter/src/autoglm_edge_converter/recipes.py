"""What a candidate is: one float graph, a recipe, and what is special to it."""

from __future__ import annotations

from dataclasses import dataclass

STATIC, DYNAMIC, WEIGHTS, HALF, FLOAT = "static", "dynamic", "weights", "half", "float"
"""Families of recipes: 8-bit kernels with ranges from calibration; 8-bit products whose ranges are found at each run;
weights stored on 8 bits and everything computed in float; weights stored on 16 bits; the float graph as it is."""

INT8, UINT8, PAIRED = "int8", "uint8", "paired"
"""What weights are stored as. The signed ones are the fastest with VNNI and may saturate without it (see `processor`);
unsigned ones never do and are slower; signed ones whose scales leave room for pairs never do and are as fast, and a
little less exact (see `saturation`)."""

OPTIMISED = "optimised"
"""The float graph that every conversion has; pruned ones have names of their own."""

SPARSE = "sparse"
"""The float graph with its smallest weights at zero."""


@dataclass(frozen=True)
class Recipe:
    """How a float graph is brought to fewer bits."""

    ranges: str = "min-max"
    """A key of `ranges.RANGES`; only static ones use it."""
    per_channel: bool = True
    equalise: bool = False
    """Scale channels alike first (see `equalise`)."""
    family: str = STATIC
    signed: bool = False
    """Signed activations (S8S8) in place of unsigned ones (U8S8); which is faster depends on the processor."""
    weights: str = INT8
    """`INT8`, `UINT8` or `PAIRED`; of static and dynamic ones."""
    correct_bias: bool = False
    """Take the mean of the weights' rounding error out of the biases (see `bias`)."""

    followers: bool = True
    """Also quantize the cheap operators between weighted nodes (see `inspection`); else they stay in float."""
    everything: bool = False
    """Integers throughout, inputs and outputs too, for accelerators that know nothing else; only TFLite."""

    def __str__(self) -> str:
        weights = _WEIGHTS[self.weights]
        if self.family != STATIC:
            scales = [] if self.per_channel else [_ONE_SCALE.get(self.family, "per tensor")]
            return ", ".join([_FAMILIES[self.family], *scales, *weights])
        parts = [self.ranges, "per channel" if self.per_channel else "per tensor"]
        parts += ["equalised"] if self.equalise else []
        parts += ["bias corrected"] if self.correct_bias else []
        parts += [] if self.followers else ["products only"]
        parts += ["integers throughout"] if self.everything else []
        return ", ".join([*parts, *weights, *(["signed"] if self.signed else [])])


_WEIGHTS = {INT8: (), UINT8: ("unsigned weights",), PAIRED: ("room for pairs",)}
_ONE_SCALE = {DYNAMIC: "fully connected per tensor"}
"""What has one scale where a recipe is not per channel, if not everything."""
_FAMILIES = {
    DYNAMIC: "ranges found at each run",
    WEIGHTS: "8-bit weights, float arithmetic",
    HALF: "16-bit weights, float arithmetic",
    FLOAT: "float",
}


@dataclass(frozen=True)
class Tuned:
    """Factors on both ends of one activation's range."""

    tensor: str
    low: float = 1.0
    high: float = 1.0


@dataclass(frozen=True)
class Candidate:
    """A recipe resolved against one model: everything quantized but the weighted nodes named here."""

    recipe: Recipe
    float_nodes: tuple[str, ...] = ()
    tuned: tuple[Tuned, ...] = ()
    graph: str = OPTIMISED
    format: str = "onnx"
    """Of `original.FORMATS`: what the float graph is written in."""

    @property
    def precision(self) -> str:
        """As the manifest writes it: `int8`, `mixed`, `fp16` or `fp32`."""
        if self.recipe.family == HALF:
            return "fp16"
        if self.recipe.family == FLOAT:
            return "fp32"
        return "mixed" if self.float_nodes else "int8"

    def __str__(self) -> str:
        name = {HALF: "FP16", FLOAT: "FP32"}.get(self.recipe.family, "INT8")
        parts = [f"{name} ({self.recipe})"]
        parts += [f"{len(self.float_nodes)} in float"] if self.float_nodes else []
        parts += [f"{len(self.tuned)} ranges tuned"] if self.tuned else []
        parts += [self.graph] if self.graph != OPTIMISED else []
        return ("" if self.format == "onnx" else "TFLite ") + ", ".join(parts)
