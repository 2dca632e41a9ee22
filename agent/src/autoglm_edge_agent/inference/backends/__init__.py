"""Backends: one module per runtime behind one small port, chosen by a plain dict and loaded when asked for.

A third party's backend is found by its entry point; docs/backends.md tells how to write one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from autoglm_edge_agent.inference.errors import ModelUnusable
from autoglm_edge_agent.inference.options import SessionOptions
from autoglm_edge_agent.inference.runtimes import GROUP
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]


class Session(Protocol):
    """A loaded model."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run once: arrays in the order of the model's inputs give arrays in the order of its outputs.

        Raises ValueError when the runtime does not take the inputs. Called from one thread at a time.
        """

    def reset(self) -> None:
        """Forget what earlier runs left behind in the model's own variables."""

    def placement(self) -> Mapping[str, int]:
        """Return how many nodes of the graph each provider took, by its name; empty where the runtime does not tell."""


class Bound(Protocol):
    """A model and the memory that it reads from and writes to."""

    def run(self) -> list[Array]:
        """Run once and return the outputs: the list of memory that was given for them, where they fit.

        Raises as `Session.run`.
        """


@runtime_checkable
class Bindable(Protocol):
    """A session that can read and write memory of the caller's, run after run. Not every runtime can."""

    def bind(self, inputs: Sequence[Array], outputs: list[Array]) -> Bound | None:
        """Bind the model to these arrays, which are contiguous; None where this session cannot."""


Open = Callable[[Path, Sequence[TensorSpec], Sequence[TensorSpec], SessionOptions], Session]
"""Loads a model file: (path, inputs, outputs, options). Raises ModelUnusable."""


@dataclass(frozen=True)
class Backend:
    """A runtime as the agent uses it."""

    open: Open
    providers: Callable[[], Sequence[str]]
    """Names that `SessionOptions.provider` may have here, the usual one first: what the runtime says it can use."""


BACKENDS: dict[str, str] = {
    "onnxruntime": "autoglm_edge_agent.inference.backends.onnxruntime",
    "litert": "autoglm_edge_agent.inference.backends.litert",
    "tflite": "autoglm_edge_agent.inference.backends.tflite_runtime",
}
"""By runtime, the module whose `BACKEND` it is."""


def load_backend(runtime: str) -> Backend:
    """Return the backend of a runtime. Raises ModelUnusable where it is unknown, not installed or broken."""
    try:
        if runtime in BACKENDS:
            loaded = importlib.import_module(BACKENDS[runtime]).BACKEND
        else:
            points = tuple(metadata.entry_points(group=GROUP, name=runtime))
            if not points:
                raise ModelUnusable(f"the runtime {runtime} is unknown here")
            loaded = points[0].load()
    except ModelUnusable:
        raise
    except Exception as error:  # a package that is half installed, or a third party's, raises whatever it likes
        raise ModelUnusable(f"the runtime {runtime} cannot be loaded: {type(error).__name__}: {error}") from None
    if not isinstance(loaded, Backend):
        raise ModelUnusable(f"the runtime {runtime} is no Backend but a {type(loaded).__name__}")
    return loaded
