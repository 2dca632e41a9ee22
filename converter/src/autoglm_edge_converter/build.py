"""Building the graph of a candidate: one function for each family of recipes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx

from autoglm_edge_converter.dynamic import dynamic_products
from autoglm_edge_converter.passes import strip_metadata
from autoglm_edge_converter.quantize import quantize
from autoglm_edge_converter.ranges import Observation
from autoglm_edge_converter.recipes import DYNAMIC, FLOAT, HALF, PAIRED, UINT8, WEIGHTS, Recipe, Tuned
from autoglm_edge_converter.unsigned_weights import unsigned_weights
from autoglm_edge_converter.weights_only import eight_bit_weights, half_weights


def build(
    proto: onnx.ModelProto,
    recipe: Recipe,
    chosen: Collection[str],
    observation: Observation,
    tuned: Sequence[Tuned] = (),
) -> onnx.ModelProto:
    """Return `proto` by the recipe, the nodes named on 8 bits. The model given is not changed.

    Errors of the quantizer pass through: a graph that it cannot do is a finding.
    """
    if recipe.family == HALF:
        return strip_metadata(half_weights(proto))
    if recipe.family == WEIGHTS:
        return strip_metadata(eight_bit_weights(proto, chosen))
    if recipe.family == DYNAMIC:
        products = dynamic_products(proto, chosen, recipe.weights == PAIRED)
        return strip_metadata(unsigned_weights(products) if recipe.weights == UINT8 else products)
    if recipe.family == FLOAT:
        return proto
    return quantize(proto, recipe, chosen, observation, tuned)
