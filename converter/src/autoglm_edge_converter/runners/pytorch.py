"""PyTorch models, by PyTorch on the CPU: an exported program, or the eager module that a factory makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoglm_edge_converter.roads.pytorch_loading import FACTORY_SUFFIX, load_program, make_module, read_factory
from autoglm_edge_converter.roads.pytorch_ports import call, named_outputs
from autoglm_edge_converter.tensors import Array, Feed

Call = Callable[[dict[str, torch.Tensor]], Any]


class PytorchRunner:
    """A module in eval mode; no gradients, deterministic kernels."""

    def __init__(self, called: Call) -> None:
        self._call = called

    def run(self, feed: Feed) -> Sequence[Array]:
        """See `Runner.run`. Outputs are in the order in which PyTorch flattens what forward gives."""
        # A copy: forward may write into its arguments, and the samples are used again.
        tensors = {name: torch.from_numpy(np.array(array, order="C")) for name, array in feed.items()}
        with torch.no_grad():
            outputs = named_outputs(self._call(tensors))
        return [output.detach().contiguous().numpy() for output in outputs.values()]


def open_pytorch(path: Path, threads: int = 1) -> PytorchRunner:
    """Open a `.pt2` file, or the `.factory.json` of a factory.

    Raises NotAModel, BadModel, BrokenWeights, UserCodeFailed, BadOption.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if path.name.endswith(FACTORY_SUFFIX):
        factory = read_factory(path)
        module = make_module(factory.reference, factory.state_dict)
        return PytorchRunner(lambda tensors: module(**tensors))
    program = load_program(path)
    exported = program.module()

    def run(tensors: dict[str, torch.Tensor]) -> Any:
        args, kwargs = call(program, tensors)
        return exported(*args, **kwargs)

    return PytorchRunner(run)
