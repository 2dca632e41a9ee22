"""The plan of a conversion: what will be done, resolved against one model and its samples, before anything is done.

Pure and printable; its dictionary goes into the bundle's provenance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoglm_edge_converter.inspection import WeightedNode
from autoglm_edge_converter.original import ONNX, TFLITE
from autoglm_edge_converter.passes import PASSES
from autoglm_edge_converter.recipes import DYNAMIC, FLOAT, HALF, PAIRED, STATIC, UINT8, WEIGHTS, Candidate, Recipe
from autoglm_edge_converter.recipes import INT8 as INT8_WEIGHTS
from autoglm_edge_converter.results import Options
from autoglm_edge_converter.search.ladder import MOST_STEPS
from autoglm_edge_converter.search.strategy import MOST_TUNED
from autoglm_edge_converter.search.tuning import SHRINK
from autoglm_edge_converter.split import Split
from autoglm_edge_converter.targets import Demands, demands_of, own_signed

FP32, FP16, INT8 = "fp32", "fp16", "int8"
PRECISIONS = (FP32, FP16, INT8)

RECIPES = (
    Recipe("min-max"),
    Recipe("percentile"),
    Recipe("least-error"),
    Recipe("entropy"),
    Recipe("min-max", correct_bias=True),
    Recipe("percentile", correct_bias=True),
    Recipe("least-error", correct_bias=True),
    Recipe("min-max", equalise=True),
    Recipe("percentile", equalise=True),
    Recipe("least-error", equalise=True),
    Recipe("least-error", equalise=True, correct_bias=True),
    Recipe("min-max", per_channel=False),
    Recipe("least-error", per_channel=False),
    Recipe("least-error", followers=False),
)
"""Static ones, tried on the whole graph, all of them: which is best depends on the network, and each costs seconds."""

WIDENING = (Recipe("min-max", weights=UINT8), Recipe("min-max", weights=UINT8, correct_bias=True))
"""More static ones for processors whose sums would saturate: more exact than scales that leave room, and slower."""

ENDS = (Recipe("min-max"), Recipe("least-error"), Recipe("min-max", correct_bias=True))
"""Static ones tried with the first layer in float, and the first and the last, for such processors: with few input
channels their 8-bit convolution is no faster than the float one."""

OTHER_SIGNS = Recipe("min-max")
"""The static one that is tried with the other signs too, where it can be timed here as it is."""

TFLITE_RECIPES = (
    Recipe("min-max"),
    Recipe("percentile"),
    Recipe("least-error"),
    Recipe("entropy"),
    Recipe("min-max", correct_bias=True),
    Recipe("least-error", correct_bias=True),
    Recipe("min-max", per_channel=False),
    Recipe("least-error", followers=False),
    Recipe(family=WEIGHTS),
    Recipe(family=WEIGHTS, per_channel=False),
    Recipe(family=HALF),
    Recipe(family=DYNAMIC),
    Recipe(family=DYNAMIC, per_channel=False),
)
"""What is tried on the whole TFLite file. Scales per channel ask some operators for newer versions than old runtimes
have, so each family has one without. LiteRT's kernels take signed activations only; scaling channels alike is an ONNX
rewrite."""

TFLITE_INTEGERS = tuple(Recipe(name, everything=True) for name in ("min-max", "percentile", "least-error"))
"""For accelerators that know nothing but integers."""

TFLITE_ENDS = (Recipe("min-max"), Recipe("least-error"))
"""Static ones tried with the layers in float that give the outputs, and with those that read the inputs too."""

PRUNED = (Recipe("min-max"), Recipe("percentile"), Recipe("min-max", equalise=True))
"""Static ones for pruned graphs, which have fewer nodes that could go back to float."""


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
    demands: Demands
    budget_s: float
    max_size_bytes: int | None = None
    max_latency_ms: float | None = None
    prune: str = "off"
    formats: tuple[str, ...] = (ONNX,)
    tflite_recipes: tuple[Recipe, ...] = ()
    tflite_nodes: tuple[str, ...] = ()
    """Names of the TFLite file's tensors that its products give."""
    tflite_ends: tuple[tuple[str, ...], ...] = ()
    """Those of them that are left in float on trial."""

    def tflite_candidates(self, pruned: Sequence[str] = ()) -> tuple[Candidate, ...]:
        """Return the whole-graph candidates in TFLite, those of pruned files too."""
        found = [Candidate(recipe, format=TFLITE) for recipe in self.tflite_recipes]
        found += [Candidate(recipe, floats, format=TFLITE) for floats, recipe in self._tflite_ends]
        for graph in pruned:
            recipes = [Recipe(family=FLOAT), *(PRUNED[:2] if INT8 in self.precisions else ())]
            found += [Candidate(recipe, graph=graph, format=TFLITE) for recipe in recipes]
        return tuple(found)

    def candidates(self, pruned: Sequence[str] = ()) -> tuple[Candidate, ...]:
        """Return the whole-graph candidates: every recipe for the optimised graph, few for each pruned one."""
        found = [Candidate(recipe) for recipe in self.recipes]
        found += [Candidate(_suited(recipe, self.demands), ends) for ends in self._ends for recipe in ENDS]
        for graph in pruned:
            found.append(Candidate(Recipe(family=FLOAT), graph=graph))
            if INT8 in self.precisions:
                found += [Candidate(_suited(recipe, self.demands), graph=graph) for recipe in PRUNED]
        return tuple(found)

    @property
    def _ends(self) -> tuple[tuple[str, ...], ...]:
        """The layers at the ends that are left in float on trial."""
        if not self.demands.saturates or len(self.nodes) < 3 or INT8 not in self.precisions or ONNX not in self.formats:
            return ()
        return (self.nodes[0],), (self.nodes[0], self.nodes[-1])

    @property
    def _tflite_ends(self) -> list[tuple[tuple[str, ...], Recipe]]:
        wanted = INT8 in self.precisions and TFLITE in self.formats
        return [(floats, recipe) for floats in self.tflite_ends for recipe in TFLITE_ENDS] if wanted else []

    @property
    def most_candidates(self) -> int:
        """How many builds the search may need in all formats, refinement included."""
        ends = len(self._ends) * len(ENDS) + len(self._tflite_ends)
        return ends + _most(self.recipes, len(self.nodes)) + _most(self.tflite_recipes, len(self.tflite_nodes))

    def to_dict(self) -> dict[str, object]:
        """Return the plan as JSON values."""
        return {
            "precisions": list(self.precisions),
            "max_drop": self.max_drop,
            "max_size_bytes": self.max_size_bytes,
            "max_latency_ms": self.max_latency_ms,
            "budget_s": self.budget_s,
            "seed": self.seed,
            "targets": list(self.demands.targets),
            "newest_opset": self.demands.newest_opset,
            "activations": "signed" if self.demands.signed else "unsigned",
            "weights": _weights(self.demands),
            "samples": {
                "calibration": len(self.parts.calibration),
                "search": len(self.parts.search),
                "acceptance": len(self.parts.acceptance),
                "evaluation": len(self.parts.evaluation),
            },
            "passes": list(self.passes),
            "prune": self.prune,
            "recipes": [str(recipe) for recipe in self.recipes],
            "formats": list(self.formats),
            "tflite_recipes": [str(recipe) for recipe in self.tflite_recipes],
        }

    def __str__(self) -> str:
        targets = ", ".join(self.demands.targets) or "this machine's kind"
        signs = "signed" if self.demands.signed else "unsigned"
        weights = ", weights that do not saturate without VNNI" if self.demands.saturates else ""
        opset = self.demands.newest_opset
        onnx = f": operator set up to {opset}, {signs} activations{weights}" if ONNX in self.formats else ""
        whole = len(self.recipes) + len(self._ends) * len(ENDS) + len(self.tflite_recipes) + len(self._tflite_ends)
        return "\n".join(
            [
                f"targets    {targets}{onnx}",
                *self._onnx(),
                *self._tflite(),
                f"search     {whole} whole candidates; at most {self.most_candidates} with refinement, "
                f"{len(self.nodes) + len(self.tflite_nodes)} nodes to rank, {self.budget_s:g} s",
                f"samples    {self._samples()}",
                f"budget     {self._limits()}",
            ]
        )

    def _onnx(self) -> list[str]:
        if ONNX not in self.formats:
            return []
        recipes = "; ".join(str(recipe) for recipe in self.recipes) or "nothing"
        ends = "; " + "; ".join(f"{recipe} with float ends" for recipe in ENDS) if self._ends else ""
        return [f"optimise   {', '.join(self.passes)}", f"prune      {self.prune}", f"quantize   {recipes}{ends}"]

    def _tflite(self) -> list[str]:
        recipes = "; ".join(str(recipe) for recipe in self.tflite_recipes) or "nothing"
        ends = "; " + "; ".join(f"{recipe} with float ends" for recipe in TFLITE_ENDS) if self._tflite_ends else ""
        return [f"tflite     {recipes}{ends}; {len(self.tflite_nodes)} nodes to rank"] if TFLITE in self.formats else []

    def _samples(self) -> str:
        parts = self.parts
        first = f"{len(parts.calibration)} calibrate, {len(parts.search)} rank"
        if parts.shared:
            return f"{first}, {len(parts.evaluation)} say yes or no and give the reported quality"
        return f"{first}, {len(parts.acceptance)} say yes or no, {len(parts.evaluation)} give the reported quality"

    def _limits(self) -> str:
        limits = [f"a drop of at most {self.max_drop:.2%}"]
        limits += [f"{self.max_size_bytes:,} bytes"] if self.max_size_bytes is not None else []
        limits += [f"{self.max_latency_ms:g} ms a run"] if self.max_latency_ms is not None else []
        return ", ".join(limits)


def _most(recipes: Sequence[Recipe], nodes: int) -> int:
    if not any(recipe.family == STATIC for recipe in recipes):
        return len(recipes)
    tuning = 1 + 2 * len(SHRINK) * MOST_TUNED
    return len(recipes) + tuning + nodes + 2 * min(MOST_STEPS, max(0, nodes - 1))


def plan_for(
    options: Options,
    parts: Split,
    nodes: Sequence[WeightedNode],
    formats: Sequence[str] = (ONNX,),
    tflite_nodes: Sequence[str] = (),
    tflite_ends: Sequence[tuple[str, ...]] = (),
) -> Plan:
    """Resolve the options against a model: one without weights worth quantizing gets no INT8 recipe.

    `nodes` are those of the ONNX graph, `tflite_nodes` and `tflite_ends` those of the TFLite file. Raises BadOption for
    a target that is not known or has no runtime.
    """
    demands = demands_of(options.targets, formats)
    wanted = tuple(name for name in PRECISIONS if name in options.precisions)
    recipes: list[Recipe] = []
    if INT8 in wanted and nodes:
        recipes += static_recipes(demands)
        recipes += [Recipe(family=WEIGHTS), Recipe(family=HALF)]
        products = any(node.operator in ("MatMul", "Gemm") for node in nodes)
        recipes += [Recipe(family=DYNAMIC, weights=_weights(demands))] if products else []
    elif FP16 in wanted:
        recipes.append(Recipe(family=HALF))
    return Plan(
        precisions=wanted,
        max_drop=options.max_drop,
        seed=options.seed,
        parts=parts,
        passes=tuple(PASSES),
        recipes=tuple(recipes),
        nodes=tuple(node.name for node in nodes),
        demands=demands,
        budget_s=options.budget_s,
        max_size_bytes=options.max_size_bytes,
        max_latency_ms=options.max_latency_ms,
        prune=options.prune,
        formats=tuple(formats),
        tflite_recipes=_tflite_recipes(wanted, tflite_nodes, options.int8_io),
        tflite_nodes=tuple(tflite_nodes),
        tflite_ends=tuple(tflite_ends),
    )


def _tflite_recipes(wanted: Sequence[str], nodes: Sequence[str], integers: bool) -> tuple[Recipe, ...]:
    if INT8 in wanted and nodes:
        return (*TFLITE_INTEGERS, *TFLITE_RECIPES) if integers else TFLITE_RECIPES
    return (Recipe(family=HALF),) if FP16 in wanted else ()


def static_recipes(demands: Demands) -> list[Recipe]:
    """Return the static recipes that suit the processors demanded: none whose sums saturate on one of them."""
    recipes = [_suited(recipe, demands) for recipe in RECIPES]
    if demands.saturates and not demands.signed:
        recipes += WIDENING
    if demands.signed == own_signed():
        recipes.append(replace(_suited(OTHER_SIGNS, demands), signed=not demands.signed))
    return recipes


def _suited(recipe: Recipe, demands: Demands) -> Recipe:
    return replace(recipe, signed=demands.signed, weights=_weights(demands))


def _weights(demands: Demands) -> str:
    return PAIRED if demands.saturates else INT8_WEIGHTS
