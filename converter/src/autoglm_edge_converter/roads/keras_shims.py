"""Classes and functions that older Keras files name and Keras 3 has under another name or not at all."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

_NAMESPACES = ("math", "nn", "image", "linalg", "__operators__")
_PLAIN = (
    "reshape",
    "transpose",
    "concat",
    "stack",
    "unstack",
    "split",
    "squeeze",
    "expand_dims",
    "tile",
    "pad",
    "gather",
    "cast",
    "identity",
    "shape",
    "ones_like",
    "zeros_like",
    "reverse",
    "slice",
    "strided_slice",
    "where",
    "clip_by_value",
    "convert_to_tensor",
    "broadcast_to",
)
"""What may be called by name: only functions that compute, since the name comes from a file."""

_OPERATORS = {
    "add": tf.add,
    "radd": lambda x, y: tf.add(y, x),
    "sub": tf.subtract,
    "rsub": lambda x, y: tf.subtract(y, x),
    "mul": tf.multiply,
    "rmul": lambda x, y: tf.multiply(y, x),
    "truediv": tf.truediv,
    "rtruediv": lambda x, y: tf.truediv(y, x),
    "pow": tf.pow,
    "neg": tf.negative,
    "abs": tf.abs,
    "matmul": tf.matmul,
    "getitem": lambda tensor, slice_spec: tensor[_slices(slice_spec)],
}


@keras.saving.register_keras_serializable(package="autoglm_edge", name="TFOpLambda")
class TFOpLambda(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A function of TensorFlow that Keras 2 wrote into the graph under its name."""

    def __init__(self, function: str, **others: Any) -> None:
        super().__init__(**others)
        self.function = function
        self._compute = function_named(function)

    def call(self, inputs: Any, **kwargs: Any) -> Any:
        """Compute; `inputs` is the function's first argument."""
        kwargs.pop("name", None)
        return self._compute(inputs, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same layer."""
        return {**super().get_config(), "function": self.function}


def function_named(name: str) -> Any:
    """Return `math.add` or `nn.relu6` of TensorFlow. Raises LookupError for what does not only compute."""
    head, _, rest = name.removeprefix("tf.").rpartition(".")
    if head == "__operators__" and rest in _OPERATORS:
        return _OPERATORS[rest]
    found = getattr(getattr(tf, head), rest, None) if head in _NAMESPACES[:-1] else None
    if not head and rest in _PLAIN:
        found = getattr(tf, rest)
    if found is None or not callable(found):
        raise LookupError(f"function {name} of TensorFlow is not known here: write the model with model.export(FOLDER)")
    return found


def _slices(spec: Any) -> Any:
    if isinstance(spec, dict):
        return slice(spec.get("start"), spec.get("stop"), spec.get("step"))
    return tuple(map(_slices, spec)) if isinstance(spec, (list, tuple)) else spec


CUSTOM_OBJECTS: dict[str, Any] = {
    "TFOpLambda": TFOpLambda,
    "SlicingOpLambda": TFOpLambda,
    "relu6": keras.activations.relu6,
    "hard_swish": keras.activations.hard_silu,
    "swish": keras.activations.silu,
    "softmax_v2": keras.activations.softmax,
}
"""What to give to Keras when it loads a file."""
