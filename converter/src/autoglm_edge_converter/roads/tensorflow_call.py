"""One call of a model: named inputs in an order, named outputs in an order, whatever the framework calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from autoglm_edge_converter.errors import BadModel, BadOption, BrokenWeights
from autoglm_edge_converter.tensors import Port


@dataclass(frozen=True)
class Call:
    """What a model computes. `function` takes the tensors of `inputs` by position and returns those of `outputs`."""

    function: Callable[..., Sequence[Any]]
    inputs: tuple[Any, ...]
    """`tf.TensorSpec`, each with its name."""
    outputs: tuple[str, ...]
    variables: tuple[Any, ...] = ()
    """The weights, for `check_finite`."""

    def traced(self) -> Any:
        """Return the concrete function of the call. Errors of TensorFlow pass through."""

        def call(*tensors: Any) -> list[Any]:
            return [tf.identity(output) for output in self.function(*tensors)]

        return tf.function(call, autograph=False, input_signature=self.inputs).get_concrete_function()


def fix_shapes(call: Call, shapes: Mapping[str, Sequence[int]]) -> Call:
    """Return the call with the free axes of its inputs fixed as given, -1 keeps one free. Raises BadOption."""
    names = [spec.name for spec in call.inputs]
    for name in shapes:
        if name not in names:
            raise BadOption(f"--shape names {name}, but the model's inputs are: {', '.join(names)}")
    return replace(call, inputs=tuple(_fixed(spec, shapes.get(spec.name)) for spec in call.inputs))


def _fixed(spec: Any, shape: Sequence[int] | None) -> Any:
    if shape is None:
        return spec
    wanted = tf.TensorShape([None if size < 0 else size for size in shape])
    if not spec.shape.is_compatible_with(wanted):
        raise BadOption(f"--shape {spec.name}={','.join(map(str, shape))} does not fit the model's {spec.shape}")
    return tf.TensorSpec(spec.shape.merge_with(wanted), spec.dtype, spec.name)


def check_call(call: Call) -> None:
    """Refuse what cannot be converted: no input, ports without names of their own, strings.

    Raises BadModel.
    """
    if not call.inputs:
        raise BadModel("the model takes no input, so there is nothing to calibrate")
    for side, names in (("inputs", [spec.name for spec in call.inputs]), ("outputs", list(call.outputs))):
        if len(set(names)) != len(names):
            raise BadModel(f"two {side} have the same name ({', '.join(names)}): give them names of their own")
    for spec in call.inputs:
        if spec.dtype == tf.string:
            raise BadModel(
                f"input {spec.name!r} takes strings: convert the part of the model behind its text operators"
            )


def check_finite(variables: Sequence[Any]) -> None:
    """Refuse weights that hold NaN or infinity. Raises BrokenWeights."""
    for variable in variables:
        value = np.asarray(variable)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            kind = "NaN" if np.isnan(value).any() else "infinity"
            name = getattr(variable, "path", variable.name)
            raise BrokenWeights(f"weight {name!r} holds {kind}: the model is damaged or its training diverged")


def input_ports(call: Call) -> tuple[Port, ...]:
    """Return the inputs of a call; a free axis is None."""
    return tuple(_port(spec.name, spec) for spec in call.inputs)


def output_ports(call: Call, concrete: Any) -> tuple[Port, ...]:
    """Return the outputs of a call that was traced; a free axis is None."""
    return tuple(_port(name, tensor) for name, tensor in zip(call.outputs, concrete.outputs, strict=True))


def _port(name: str, tensor: Any) -> Port:
    rank = tensor.shape.rank
    return Port(name, tensor.dtype.name, None if rank is None else tuple(tensor.shape.as_list()))


def document_of(ports: Sequence[Port]) -> list[dict[str, Any]]:
    """Return ports as a departure says them."""
    return [
        {"name": port.name, "dtype": port.dtype, "shape": None if port.shape is None else list(port.shape)}
        for port in ports
    ]
