"""Keras models that compute in half or double precision, built again to compute in single precision.

TensorFlow's converter has no operators of TFLite for the other precisions, and quantizers know none of them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from autoglm_edge_converter.roads.keras_loading import call_of, load_keras
from autoglm_edge_converter.roads.tensorflow_call import Call
from autoglm_edge_converter.roads.tensorflow_program import said

SINGLE = "float32"
_OTHERS = ("float16", "bfloat16", "float64")
"""From the coarsest answers to the finest, as `faithful` judges them."""

_POLICIES = (*_OTHERS, "mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True)
class Written:
    """What is written of a model: a call with the model's own ports, and the precision that the model computes in."""

    call: Call
    precision: str = SINGLE
    notes: tuple[str, ...] = ()


def written(model: Any, scratch: Path) -> Written:
    """Return what to write of a functional model: in single precision where it can be built again in that.

    A file of that is written below `scratch`.
    """
    call = call_of(model)
    policies = sorted({layer.dtype_policy.name for layer in _layers(model)} & set(_POLICIES))
    precision = _precision_of(model)
    if precision == SINGLE:
        return Written(call)
    came = f"the model computes in {', '.join(policies) or precision}"
    try:
        single = _in_single_precision(model, scratch)
    except Exception as error:  # of any layer's own code
        return Written(call, precision, (f"{came}, and so does what is written: {said(error)}",))
    function = _with_ports_of(model, call_of(single).function, [tensor.dtype for tensor in single.inputs])
    note = f"{came}; what is written computes in {SINGLE}"
    return Written(replace(call, function=function, variables=tuple(single.variables)), precision, (note,))


def _layers(model: Any) -> Iterable[Any]:
    return list(model._flatten_layers(include_self=False))


def _precision_of(model: Any) -> str:
    found = {layer.compute_dtype for layer in _layers(model)} | {tensor.dtype for tensor in model.inputs}
    return next((name for name in _OTHERS if name in found), SINGLE)


def _in_single_precision(model: Any, scratch: Path) -> Any:
    """Return the model of the same file with another configuration; what layers keep beside weights is read, too."""
    came, path = scratch / "as-it-came.keras", scratch / "single.keras"
    model.save(came)
    with zipfile.ZipFile(came) as archive, zipfile.ZipFile(path, "w") as changed:
        for name in archive.namelist():
            held = archive.read(name)
            changed.writestr(name, json.dumps(_single(json.loads(held))) if name == "config.json" else held)
    came.unlink()
    return load_keras(path)


def _single(config: Any) -> Any:
    """Return a configuration with every type of real numbers and every policy in single precision."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "DTypePolicy":
            return SINGLE if config["config"]["name"] in _POLICIES else config
        return {
            key: SINGLE if key == "dtype" and value in _POLICIES else _single(value) for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(map(_single, config))
    return config


def _with_ports_of(model: Any, compute: Any, taken: Sequence[str]) -> Any:
    """Return a function that takes and gives what the model does, and computes with tensors of the types in `taken`."""
    given = [tensor.dtype for tensor in keras.tree.flatten(model.output)]

    def call(*tensors: Any) -> Sequence[Any]:
        answers = compute(*(tf.cast(tensor, dtype) for tensor, dtype in zip(tensors, taken, strict=True)))
        return tuple(tf.cast(answer, dtype) for answer, dtype in zip(answers, given, strict=True))

    return call
