"""Configurations of Keras 2 (the JSON in `.h5` files) as Keras 3 takes them. Pure.

Initializers, regularizers and constraints are left out: they matter to training only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")
_INERT = (None, False, 0, 1, "")
"""Values that an argument Keras 3 dropped may have: they ask for what it does anyway."""

_DROPPED = frozenset(
    (
        "groups",
        "ragged",
        "time_major",
        "implementation",
        "fused",
        "renorm",
        "virtual_batch_size",
        "sparse",
        "adjustment",
    )
)
_DROPPED_FROM = {
    "groups": ("DepthwiseConv2D", "DepthwiseConv1D", "SeparableConv2D", "SeparableConv1D", "Conv2DTranspose"),
    "implementation": ("LSTM", "GRU", "SimpleRNN", "Dense"),
}
_RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "Model": "Functional",
    "CuDNNLSTM": "LSTM",
    "SyncBatchNormalization": "BatchNormalization",
}


def modern(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a layer or model, and of all in it, in terms of Keras 3. Changes nothing."""
    name = _RENAMED.get(config["class_name"], config["class_name"])
    inner = config.get("config")
    if isinstance(inner, list):  # Keras before 2.2.3 wrote a Sequential model's layers alone
        inner = {"name": "sequential", "layers": inner}
    changed = {**config, "class_name": name, "config": _inner(name, dict(inner or {}))}
    if name == "Sequential":
        _add_input(changed["config"])
    if name in ("TFOpLambda", "SlicingOpLambda"):
        changed["inbound_nodes"] = [_plain_node(node) for node in config.get("inbound_nodes", ())]
    return changed


def _plain_node(node: list[list[Any]]) -> list[list[Any]]:
    """Return a node of an operator with the tensors among its keyword arguments after the first one.

    Keras 2 wrote `[["a", 0, 0, {"y": ["b", 0, 0]}]]`, and Keras 3 follows tensors in the outer list only.
    """
    if len(node) != 1 or len(node[0]) != 4:
        return node
    first, arguments = node[0][:3], node[0][3]
    tensors = {key: value for key, value in arguments.items() if _is_tensor(value)}
    if not tensors:
        return node
    constants = {key: value for key, value in arguments.items() if key not in tensors}
    entries = [[*first, {}], *([*value[:3], {}] for value in tensors.values())]
    entries[-1][3] = {**constants, "passed": list(tensors)}
    return entries


def _is_tensor(value: object) -> bool:
    return isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int)


def _inner(name: str, config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if not key.endswith(_TRAINING_ONLY)}
    kept = {key: value for key, value in kept.items() if not _is_dropped(name, key, value)}
    if isinstance(kept.get("dtype"), dict):
        kept["dtype"] = kept["dtype"].get("config", {}).get("name", "float32")
    if name == "BatchNormalization" and isinstance(kept.get("axis"), list):
        (kept["axis"],) = kept["axis"]
    if name == "InputLayer" and "batch_input_shape" in kept:
        kept["batch_shape"] = kept.pop("batch_input_shape")
    if isinstance(kept.get("layers"), list):
        kept["layers"] = [modern(layer) for layer in kept["layers"]]
    if isinstance(kept.get("layer"), dict):
        kept["layer"] = modern(kept["layer"])
    return kept


def _is_dropped(name: str, key: str, value: object) -> bool:
    if key not in _DROPPED or isinstance(value, (list, dict)) or value not in _INERT:
        return key == "implementation" and name in _DROPPED_FROM[key]
    return key not in _DROPPED_FROM or name in _DROPPED_FROM[key]


def _add_input(config: dict[str, Any]) -> None:
    """Say the input's shape in a layer of its own, as Keras 3 does; the first layer said it before."""
    layers = config["layers"]
    if not layers or layers[0]["class_name"] == "InputLayer":
        return
    shape = layers[0]["config"].pop("batch_input_shape", None) or config.get("build_input_shape")
    config.pop("build_input_shape", None)
    if shape:
        name = f"{layers[0]['config'].get('name', 'first')}_input"
        entry = {"batch_shape": shape, "dtype": layers[0]["config"].get("dtype", "float32"), "name": name}
        layers.insert(0, {"class_name": "InputLayer", "config": entry})
