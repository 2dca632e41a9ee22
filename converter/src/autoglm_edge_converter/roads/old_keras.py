"""Configurations of Keras 2 (the JSON in `.h5` files) as Keras 3 takes them. Pure.

Initializers, regularizers and constraints are left out: they matter to training only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
        "softmax_robust_masking",
    )
)
_DROPPED_FROM = {
    "groups": ("DepthwiseConv2D", "DepthwiseConv1D", "SeparableConv2D", "SeparableConv1D", "Conv2DTranspose"),
    "implementation": ("LSTM", "GRU", "SimpleRNN", "Dense"),
}
_SHAPES = ("query_shape", "key_shape", "value_shape", "build_input_shape", "build_config")
"""What layers were built for; they are built anew."""

_MODELS = ("Functional", "Model", "Sequential")
_CONSTANT = "_CONSTANT_VALUE"

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
    return changed


def _with_calls(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the layers of a graph with their calls as Keras 3 follows them."""
    models = {layer["name"] for layer in layers if layer.get("class_name") in _MODELS and "name" in layer}
    return [
        {**layer, "inbound_nodes": [_node(node, models) for node in layer["inbound_nodes"]]}
        if layer.get("inbound_nodes")
        else dict(layer)
        for layer in layers
    ]


def _node(node: Any, models: Collection[str]) -> object:
    """Return a call of a layer as Keras 3 follows it: it looks for tensors in its own form only, arguments included.

    Keras 2 wrote `[["a", 0, 0, {"y": ["b", 0, 0]}]]`, for operators of one tensor without the outer list, and numbers
    in the place of tensors as `["_CONSTANT_VALUE", -1, 2.0, {...}]`.
    """
    if isinstance(node, dict):  # a file of Keras 3
        return node
    entries = [_counted(entry, models) for entry in ([node] if isinstance(node[0], str) else node)]
    arguments = entries[-1][3] if len(entries[-1]) == 4 else {}
    constant = any(entry[0] == _CONSTANT for entry in entries)
    if not constant and not any(map(_is_tensor, arguments.values())):
        return entries
    first = [_argument(entry[:3]) for entry in entries]
    keywords = {
        key: _argument(_counted(value, models) if _is_tensor(value) else value) for key, value in arguments.items()
    }
    if len(first) == 1 and constant:  # Keras takes tensors alone by position
        return {"args": [], "kwargs": {"inputs": first[0], **keywords}}
    return {"args": first if len(first) == 1 else [first], "kwargs": keywords}


def _counted(entry: list[Any], models: Collection[str]) -> list[Any]:
    """Count the calls of a model inside another from 0: in Keras 2 its own making was the first."""
    return [entry[0], entry[1] - 1, *entry[2:]] if entry[0] in models and entry[1] else entry


def _argument(value: Any) -> Any:
    if not _is_tensor(value):
        return value
    if value[0] == _CONSTANT:
        return value[2]
    return {"class_name": "__keras_tensor__", "config": {"shape": [1], "dtype": "float32", "keras_history": value[:3]}}


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
        kept["layers"] = [modern(layer) for layer in _with_calls(kept["layers"])]
    for key in ("input_layers", "output_layers"):
        if isinstance(kept.get(key), list) and len(kept[key]) == 1:  # else a model inside another gives a list
            kept[key] = kept[key][0]
    if isinstance(kept.get("layer"), dict):
        kept["layer"] = modern(kept["layer"])
    return kept


def _is_dropped(name: str, key: str, value: object) -> bool:
    if key in _SHAPES and name not in ("Sequential", "Functional"):
        return True
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
