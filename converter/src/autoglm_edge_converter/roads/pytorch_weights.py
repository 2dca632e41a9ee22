"""State dicts: read without running any code that a file may hold, loaded strictly, looked through for NaN."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from autoglm_edge_converter.errors import BadOption, BrokenWeights, MissingPackage, MissingWeights

State = Mapping[str, torch.Tensor]

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Where training scripts and Lightning put the state dict in what they save."""


def read_state(path: Path) -> State:
    """Return the tensors of a `.pt`, `.pth` or `.safetensors` file by name.

    Raises MissingWeights, BadOption, MissingPackage.
    """
    if not path.is_file():
        raise MissingWeights(f"{path} is not a file: give the state dict with --state-dict FILE.pt")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)


def _read_safetensors(path: Path) -> State:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise MissingPackage(".safetensors files", "torch", "safetensors") from None
    try:
        state: State = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadOption(f"--state-dict {path.name} cannot be read: {error}: save it again") from None
    return state


def _read_pickled(path: Path) -> State:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise BadOption(
            f"--state-dict {path.name} holds more than weights, and reading that could run any code: "
            "save it again with torch.save(model.state_dict(), ...)"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BadOption(f"--state-dict {path.name} is cut short or no file of torch.save: {reason}") from None
    return _unwrapped(found, path)


def _unwrapped(found: Any, path: Path) -> State:
    for name in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise BadOption(f"--state-dict {path.name} is no state dict: save it with torch.save(model.state_dict(), ...)")
    return dict(found)


def without_prefix(state: State, wanted: Collection[str]) -> State:
    """Return a state dict without what stands before all its names; unchanged where the rest does not fit the module.

    DataParallel puts `module.` there, torch.compile `_orig_mod.`, Lightning the attribute that holds the network.
    """
    first = next(iter(state), "")
    steps = first.split(".")
    for prefix in (".".join(steps[:count]) + "." for count in range(1, len(steps))):
        if all(name.startswith(prefix) for name in state):
            rest = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            if rest.keys() == set(wanted):
                return rest
    return state


def load_state(module: torch.nn.Module, path: Path) -> None:
    """Load a file into a module; every name and shape must fit. Raises MissingWeights, BadOption, MissingPackage."""
    wanted = module.state_dict()
    state = without_prefix(read_state(path), wanted.keys())
    problems = (
        ("lacks", sorted(wanted.keys() - state.keys())),
        ("has, and the module has not,", sorted(state.keys() - wanted.keys())),
        ("has in another shape", sorted(n for n in wanted.keys() & state.keys() if wanted[n].shape != state[n].shape)),
    )
    for verb, names in problems:
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise BadOption(f"--state-dict {path.name} {verb} {shown}: it is of another network than the factory makes")
    module.load_state_dict(dict(state))


def check_finite(state: State) -> None:
    """Refuse weights that hold NaN or infinity. Raises BrokenWeights."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            kind = "NaN" if torch.isnan(tensor).any() else "infinity"
            raise BrokenWeights(f"weight {name!r} holds {kind}: the model is damaged or its training diverged")
