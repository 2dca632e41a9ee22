"""Loading a Keras model of any age, and the order and names of what it takes and gives."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-not-found,import-untyped,unused-ignore]  # it has no types
import keras
import tensorflow as tf

from autoglm_edge_converter.errors import BadModel, BadOption, NotAModel
from autoglm_edge_converter.roads.keras_shims import CUSTOM_OBJECTS
from autoglm_edge_converter.roads.old_keras import modern
from autoglm_edge_converter.roads.tensorflow_call import Call
from autoglm_edge_converter.roads.tensorflow_program import said
from autoglm_edge_converter.tensors import clear_of

_MEMBERS = ("config.json", "model.weights.h5")

_OWN = re.compile(r"(?:Could not locate|Unknown) (?P<kind>[\w ]+):? '(?P<name>[^']+)'")
"""What Keras says, somewhere in a long text, of a class or function that it does not know."""


def load_keras(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Any:
    """Return the model in a `.keras` or `.h5` file, built; training state is left out.

    `shapes` builds a Sequential model that never learned its input's shape. Raises NotAModel, BadModel, BadOption.
    """
    if not path.is_file():
        raise NotAModel(f"{path} is not a file: give the path of a Keras model")
    if zipfile.is_zipfile(path):
        model = _load_archive(path)
    elif h5py.is_hdf5(path):
        model = _load_hdf5(path)
    else:
        raise NotAModel(f"{path} is not a Keras model, or is cut short: save or copy it again")
    return _built(model, shapes or {}, path)


def _load_archive(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            lacking = [name for name in _MEMBERS if name not in archive.namelist()]
            if lacking:
                raise NotAModel(f"{path} is no Keras model, it holds no {lacking[0]}: save it with model.save()")
            damaged = archive.testzip()  # Keras itself reads weights without looking at their checksum
            if damaged is not None:
                raise NotAModel(f"{path} is damaged in {damaged}: save or copy it again")
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise NotAModel(f"{path} is damaged ({said(error)}): save or copy it again") from None
    refuse_code(config)
    return _deserialized(lambda: keras.saving.load_model(path, CUSTOM_OBJECTS, compile=False), path)


def _load_hdf5(path: Path) -> Any:
    from keras.src.legacy.saving import legacy_h5_format

    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            if text is None:
                raise NotAModel(f"{path} holds weights only: save the whole model with model.save()")
            config = json.loads(text)
            refuse_code(config)
            return _deserialized(lambda: _from_old(config, file, legacy_h5_format), path)
    except (OSError, ValueError) as error:
        raise NotAModel(f"{path} is damaged or cut short ({said(error)}): save or copy it again") from None


def _from_old(config: Mapping[str, Any], file: Any, legacy: Any) -> Any:
    from keras.src.legacy.saving import saving_options, saving_utils

    with saving_options.keras_option_scope(use_legacy_config=True):
        model = saving_utils.model_from_config(modern(config), custom_objects=CUSTOM_OBJECTS)
        legacy.load_weights_from_hdf5_group(file["model_weights"], model)
    return model


def _deserialized(load: Any, path: Path) -> Any:
    try:
        return load()
    except Exception as error:
        own = _OWN.search(str(error))
        if own is not None and own["name"] in {kind.__name__ for kind in keras.Operation.__subclasses__()}:
            raise BadModel(
                f"Keras {keras.__version__} does not read its own operator {own['name']!r} again from {path}: "
                "save the model as .keras"
            ) from None
        if own is not None:
            kind = "function" if "function" in own["kind"] else "class"
            raise BadModel(
                f"{path} uses a {kind} of your own ({own['name']!r}): "
                "write it as a SavedModel with model.export(FOLDER)"
            ) from None
        raise BadModel(f"Keras {keras.__version__} does not load {path}: {said(error)}") from None


def refuse_code(config: object) -> None:
    """Refuse a model with Python code in it, which would be run by loading it. Raises BadModel."""
    for layer in _layers(config):
        if layer.get("class_name") == "Lambda":
            name = layer.get("config", {}).get("name", "lambda")
            raise BadModel(
                f"layer {name!r} is a Lambda, whose Python code is stored in the file and not run here: "
                "replace it by layers or keras.ops and save again, or write a SavedModel with model.export(FOLDER)"
            )


def _layers(config: object) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for value in config.values():
            yield from _layers(value)
    elif isinstance(config, list):
        for value in config:
            yield from _layers(value)


def _built(model: Any, shapes: Mapping[str, Sequence[int]], path: Path) -> Any:
    if not isinstance(model, keras.Model):
        raise NotAModel(f"{path} holds a {type(model).__name__}, not a model")
    if isinstance(model, keras.Sequential) and not model.built:
        if len(shapes) != 1:
            raise BadOption(f"{path} does not say what shape its input has: give it with --shape input=1,28,28,1")
        ((name, shape),) = shapes.items()
        first = keras.Input(batch_shape=[None if size < 0 else size for size in shape], name=name)
        model = keras.Model(first, model(first), name=model.name)
    if not getattr(model, "inputs", None):
        raise BadModel(f"{path} is a subclassed model without a graph: write it with model.export(FOLDER)")
    return functional(model) if isinstance(model, keras.Sequential) else model


def functional(model: Any) -> Any:
    """Return a built model as a graph that is not compiled, on the same layers. A Sequential one has no ports else."""
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return keras.Model(model.input, model.output, name=model.name)


def call_of(model: Any) -> Call:
    """Return a built model as a call. A model made from a dict takes and gives what its keys say."""
    names = _names(model.input, [tensor.name for tensor in model.inputs])
    outputs = _names(model.output, list(model.output_names))
    specs = tuple(
        tf.TensorSpec(tensor.shape, tensor.dtype, name) for tensor, name in zip(model.inputs, names, strict=True)
    )

    def call(*tensors: Any) -> Sequence[Any]:
        packed = keras.tree.pack_sequence_as(model.input, list(tensors))
        return tuple(keras.tree.flatten(model(packed, training=False)))

    return Call(call, specs, tuple(clear_of(_distinct(outputs), names)), tuple(model.variables))


def _names(structure: object, otherwise: Sequence[str]) -> list[str]:
    flat = isinstance(structure, dict) and len(structure) == len(otherwise)
    return sorted(structure) if flat and isinstance(structure, dict) else list(otherwise)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names where one layer that gives two outputs is told apart by a number."""
    return tuple(name if names.index(name) == at else f"{name}_{at}" for at, name in enumerate(names))
