"""Running a call of TensorFlow as one compiled graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autoglm_edge_converter.tensors import Array, Feed

if TYPE_CHECKING:
    from autoglm_edge_converter.roads.tensorflow_call import Call


class TensorflowRunner:
    """A model that was traced once."""

    def __init__(self, call: Call) -> None:
        self._names = [spec.name for spec in call.inputs]
        self._dtypes = [spec.dtype for spec in call.inputs]
        self._call = call  # a traced function does not keep the variables that it reads alive
        self._concrete = call.traced()

    def run(self, feed: Feed) -> Sequence[Array]:
        """See `Runner.run`. Raises ValueError for a name or dtype that the model does not have."""
        import tensorflow as tf

        for name in feed:
            if name not in self._names:
                raise ValueError(f"the model has no input {name!r}, its inputs are: {', '.join(self._names)}")
        tensors: list[Any] = []
        for name, dtype in zip(self._names, self._dtypes, strict=True):
            if name not in feed:
                raise ValueError(f"no value for input {name!r}")
            if feed[name].dtype != dtype.as_numpy_dtype:
                raise ValueError(f"input {name!r} takes {dtype.name}, not {feed[name].dtype.name}")
            tensors.append(tf.constant(feed[name]))
        return [np.asarray(output) for output in self._concrete(*tensors)]
