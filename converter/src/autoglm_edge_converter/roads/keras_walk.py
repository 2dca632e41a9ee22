"""Walking through a Keras model once, to learn its channels; and making the same model with fewer of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.roads.keras_channels import Axes, Cut, Labels, Map, fits
from autoglm_edge_converter.roads.keras_loading import functional
from autoglm_edge_converter.roads.keras_rules import WEIGHTED, carry, is_elementwise


def plain(model: Any) -> Any:
    """Return a model as one graph of layers that are not compiled, with the models inside it laid open.

    It shares the layers. Models inside stay closed where a layer in them is called as one outside.
    """
    whole = functional(model)
    while any(_is_open(operation) for operation in whole.operations):
        try:
            whole = keras.models.clone_model(whole, clone_function=lambda layer: layer, call_function=_enter)
        except ValueError:  # two layers of one name
            break
    return whole


def _is_open(operation: Any) -> bool:
    return isinstance(operation, keras.Model) and bool(getattr(operation, "inputs", None))


def _enter(operation: Any, *args: Any, **kwargs: Any) -> Any:
    return operation.call(*args, **kwargs) if _is_open(operation) else operation(*args, **kwargs)


def walk(model: Any, shapes: Mapping[str, Sequence[int]]) -> Map:
    """Return the channels of a plain model; `shapes` says the size of free axes, that of the batch apart.

    Raises BadOption where a size is needed and not given.
    """
    walker = _Walker()
    inputs = keras.tree.map_structure(lambda tensor: _sized(tensor, shapes), model.input)
    for tensor in keras.tree.flatten(inputs):
        walker.freeze(tensor)
    done = keras.models.clone_model(
        model, input_tensors=inputs, clone_function=lambda layer: layer, call_function=walker.call
    )
    for tensor in done.outputs:
        walker.found.channels.freeze(walker.labels(tensor))
    return walker.found


def _sized(tensor: Any, shapes: Mapping[str, Sequence[int]]) -> Any:
    given = shapes.get(tensor.name, tensor.shape)
    shape = [theirs if size is None or size < 0 else size for size, theirs in zip(given, tensor.shape, strict=True)]
    if None in shape[1:]:
        example = ",".join(str(size or 224) for size in [-1, *shape[1:]])
        raise BadOption(f"--prune counts multiplications: say the input's size, as --shape {tensor.name}={example}")
    return keras.Input(batch_shape=(None, *shape[1:]), dtype=tensor.dtype, name=tensor.name)


@dataclass
class _Walker:
    """Follows the labels from call to call."""

    found: Map = field(default_factory=Map)
    known: dict[int, Labels] = field(default_factory=dict)
    alive: list[Any] = field(default_factory=list)
    """Tensors, so that no other one gets the identity of one that is gone."""
    refused: set[str] = field(default_factory=set)

    def call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a layer, and learn what it does to channels."""
        given = keras.tree.flatten((args, kwargs))
        tensors = [entry for entry in given if isinstance(entry, keras.KerasTensor)]
        answer = operation(*args, **kwargs)
        outputs = keras.tree.flatten(answer)
        simple = all(entry is None or isinstance(entry, (keras.KerasTensor, bool, int, float, str)) for entry in given)
        made = self._made(operation, tensors, outputs[0]) if simple and len(outputs) == 1 else None
        if made is None or len(made) != outputs[0].shape[-1]:
            self._refuse(operation, tensors, outputs)
        else:
            self._remember(outputs[0], made)
        return answer

    def labels(self, tensor: Any) -> Labels:
        return self.known[id(tensor)]

    def freeze(self, tensor: Any) -> None:
        """Give a tensor channels that stay."""
        labels = self.found.channels.new(_last(tensor))
        self.found.channels.freeze(labels)
        self._remember(tensor, labels)

    def _remember(self, tensor: Any, labels: Labels) -> None:
        self.known[id(tensor)] = labels
        self.alive.append(tensor)

    def _refuse(self, operation: Any, tensors: Sequence[Any], outputs: Sequence[Any]) -> None:
        for tensor in tensors:
            self.found.channels.freeze(self.labels(tensor))
        for tensor in outputs:
            self.freeze(tensor)
        positions = _positions(outputs[0]) if outputs else 0.0
        cut = self.found.cuts.pop(operation.name, None)
        if cut is not None:  # it was called before in a way that is known
            self.found.channels.freeze(np.concatenate([cut.reads, cut.makes]))
            positions += cut.positions
        self.found.fixed += positions * sum(array.size for array in _weights(operation) if array.ndim > 1)
        self.refused.add(operation.name)

    def _made(self, operation: Any, tensors: Sequence[Any], output: Any) -> Labels | None:
        inputs = [self.labels(tensor) for tensor in tensors]
        if not inputs or operation.name in self.refused:
            return None
        if type(operation) not in WEIGHTED:
            return carry(operation, inputs, tensors, self.found.channels)
        cut = self._cut(operation, inputs[0]) if len(inputs) == 1 else None
        if cut is None:
            return None
        cut.positions += _positions(output)
        return cut.makes

    def _cut(self, layer: Any, reads: Labels) -> Cut | None:
        known = self.found.cuts.get(layer.name)
        if known is not None:
            self.found.channels.join(known.reads, reads)
            return known
        cut = WEIGHTED[type(layer)](layer, reads, self.found.channels)
        if cut is None or not fits(cut):
            return None
        if not is_elementwise(getattr(layer, "activation", None)):
            self.found.channels.freeze(cut.makes)
        self.found.cuts[layer.name] = cut
        return cut


def _positions(tensor: Any) -> float:
    return float(np.prod([size or 1 for size in tensor.shape[1:-1]]))


def _weights(operation: Any) -> Sequence[Any]:
    return operation.get_weights() if isinstance(operation, keras.layers.Layer) else ()


def _last(tensor: Any) -> int:
    return int(tensor.shape[-1] or 0) if tensor.shape else 0


def rebuild(model: Any, found: Map, kept: npt.NDArray[np.bool_]) -> Any:
    """Return a plain model anew with the labels that are kept, bool [labels], and their share of the weights."""
    made: dict[str, Any] = {}

    def narrowed(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer
        config = layer.get_config()
        cut = found.cuts.get(layer.name)
        if cut is not None and cut.width is not None:
            config[cut.width] = _counted(config[cut.width], int(kept[cut.makes].sum()))
        made[layer.name] = type(layer).from_config(config)
        return made[layer.name]

    whole = keras.models.clone_model(model, clone_function=narrowed)
    for name, layer in made.items():
        cut = found.cuts.get(name)
        weights = model.get_layer(name).get_weights()
        layer.set_weights(weights if cut is None else list(map(_sliced(kept), weights, cut.arrays)))
    return whole


def _counted(before: Any, count: int) -> Any:
    return (*before[:-1], count) if isinstance(before, (list, tuple)) else count


def _sliced(kept: npt.NDArray[np.bool_]) -> Any:
    def sliced(array: Any, axes: Axes) -> Any:
        for axis, labels in enumerate(axes):
            if labels is not None:
                array = np.compress(kept[labels], array, axis)
        return array

    return sliced
