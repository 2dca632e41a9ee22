"""Bringing a float TFLite file to fewer bits by a recipe, with ai-edge-quantizer.

What is quantized is named tensor by tensor; everything else stays as it is. Equal questions give equal bytes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.model_modifier import ModelModifier
from ai_edge_quantizer.params_generator import ParamsGenerator
from ai_edge_quantizer.qtyping import (
    ComputePrecision,
    OpQuantizationConfig,
    QuantGranularity,
    TensorDataType,
    TensorQuantizationConfig,
    TFLOperationName,
)
from ai_edge_quantizer.recipe_manager import RecipeManager

from autoglm_edge_converter.ranges import Range
from autoglm_edge_converter.recipes import DYNAMIC, FLOAT, HALF, STATIC, WEIGHTS, Recipe
from autoglm_edge_converter.tflite.editing import drop_metadata, serialize, unpack
from autoglm_edge_converter.tflite.nodes import Prepared, quantized_operations
from autoglm_edge_converter.tflite.ports import name_ports
from autoglm_edge_converter.tflite.schema import Table
from autoglm_edge_converter.tflite.versions import stamp_versions


def quantize(
    prepared: Prepared,
    recipe: Recipe,
    chosen: Collection[str],
    ranges: Mapping[int, Range],
) -> bytes:
    """Return the file with the nodes named on fewer bits; inputs and outputs keep their names and order.

    They keep their dtype too, but for a recipe with integers throughout, which makes them int8 where what reads and
    makes them is. `ranges` holds what the float tensors of the prepared file take, by index; only static recipes need
    it. Raises ValueError and whatever else the quantizer raises on operators that it cannot do.
    """
    changed = unpack(prepared.data)
    outputs = _outputs(prepared, recipe, chosen)
    if outputs and recipe.family != FLOAT:
        manager = RecipeManager()
        _CONFIGURE[recipe.family](manager, _scope(outputs), recipe)
        if recipe.family == STATIC and not recipe.everything:
            for port in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
                manager.add_quantization_config(".*", port, None, AlgorithmName.NO_QUANTIZE)
        elif recipe.family == STATIC:
            _static_ports(manager)
        ends = {f"t{index}": _extremes(entry) for index, entry in ranges.items()}
        # A channel of nothing but zeros is divided by zero on the way, and comes out as zeros.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of models that are quantized in part, which is no mistake
            parameters = ParamsGenerator(changed).generate_quantization_parameters(manager, ends, False)
            written = ModelModifier(changed).modify_model(parameters, enable_progress_bar=False)
        changed = unpack(bytes(written))
    drop_metadata(changed)
    _free_axes(changed, prepared)
    stamp_versions(changed)
    name_ports(changed, prepared.inputs, prepared.outputs)
    return serialize(changed)


def _free_axes(changed: Table, prepared: Prepared) -> None:
    """Tell again which axes of the ports are free: the quantizer makes new tensors for them and forgets it."""
    graph = changed.subgraphs[0]
    before = (*prepared.graph.inputs, *prepared.graph.outputs)
    for now, was in zip((*graph.inputs, *graph.outputs), before, strict=True):
        shape = prepared.graph.tensors[was].shape
        if None in shape:
            graph.tensors[now].shapeSignature = [-1 if size is None else size for size in shape]


def _outputs(prepared: Prepared, recipe: Recipe, chosen: Collection[str]) -> list[str]:
    """Return the first output of each operator to quantize, as the prepared file calls it."""
    if recipe.family == STATIC:
        found = quantized_operations(prepared, chosen, followers=recipe.followers, everything=recipe.everything)
        return [f"t{entry.outputs[0]}" for entry in found]
    return [f"t{node.output}" for node in prepared.nodes if node.constant and node.name in set(chosen)]


def _scope(outputs: Iterable[str]) -> str:
    """Return a pattern for the quantizer's name of an operator: its outputs, each with a semicolon behind."""
    return f"^(?:{'|'.join(re.escape(name) for name in outputs)});"


def _weights(recipe: Recipe, bits: int, dtype: TensorDataType) -> TensorQuantizationConfig:
    granularity = QuantGranularity.CHANNELWISE if recipe.per_channel else QuantGranularity.TENSORWISE
    return TensorQuantizationConfig(num_bits=bits, symmetric=True, granularity=granularity, dtype=dtype)


def _static(manager: RecipeManager, scope: str, recipe: Recipe) -> None:
    _add(manager, scope, _static_config(_weights(recipe, 8, TensorDataType.INT)))


def _static_config(weights: TensorQuantizationConfig) -> OpQuantizationConfig:
    return OpQuantizationConfig(
        activation_tensor_config=TensorQuantizationConfig(num_bits=8, symmetric=False),
        weight_tensor_config=weights,
        compute_precision=ComputePrecision.INTEGER,
    )


def _static_ports(manager: RecipeManager) -> None:
    config = _static_config(TensorQuantizationConfig(num_bits=8))
    for port in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        manager.add_quantization_config(".*", port, config, AlgorithmName.MIN_MAX_UNIFORM_QUANT)


def _dynamic(manager: RecipeManager, scope: str, recipe: Recipe) -> None:
    """Depthwise convolutions compute in float, and old runtimes lack only the fully connected one with many scales.

    XNNPACK has no depthwise kernel that finds ranges itself; LiteRT's own takes many times as long as the float one,
    and answers with noise where all channels have one scale.
    """
    per_channel = replace(recipe, per_channel=True)
    _add(manager, scope, _dynamic_config(per_channel))
    _add(manager, scope, _widened_config(per_channel), operation=TFLOperationName.DEPTHWISE_CONV_2D)
    if not recipe.per_channel:
        _add(manager, scope, _dynamic_config(recipe), operation=TFLOperationName.FULLY_CONNECTED)


def _dynamic_config(recipe: Recipe) -> OpQuantizationConfig:
    return OpQuantizationConfig(None, _weights(recipe, 8, TensorDataType.INT), ComputePrecision.INTEGER)


def _weights_only(manager: RecipeManager, scope: str, recipe: Recipe) -> None:
    _add(manager, scope, _widened_config(recipe))


def _widened_config(recipe: Recipe) -> OpQuantizationConfig:
    weights = _weights(recipe, 8, TensorDataType.INT)
    return OpQuantizationConfig(None, weights, ComputePrecision.FLOAT, explicit_dequantize=True)


def _half(manager: RecipeManager, scope: str, recipe: Recipe) -> None:
    weights = _weights(recipe, 16, TensorDataType.FLOAT)
    config = OpQuantizationConfig(None, weights, ComputePrecision.FLOAT, explicit_dequantize=True)
    _add(manager, scope, config, AlgorithmName.FLOAT_CASTING)


_CONFIGURE = {STATIC: _static, DYNAMIC: _dynamic, WEIGHTS: _weights_only, HALF: _half}


def _add(
    manager: RecipeManager,
    scope: str,
    config: OpQuantizationConfig,
    how: Any = AlgorithmName.MIN_MAX_UNIFORM_QUANT,
    operation: TFLOperationName = TFLOperationName.ALL_SUPPORTED,
) -> None:
    manager.add_quantization_config(scope, operation, config, how)


def _extremes(ends: Range) -> dict[str, Any]:
    return {"min": np.array([ends[0]], np.float32), "max": np.array([ends[1]], np.float32)}
