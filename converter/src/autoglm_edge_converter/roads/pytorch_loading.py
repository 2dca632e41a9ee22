"""PyTorch models by name: an exported program (`.pt2`), or `module.py:factory` and its state dict.

A factory's module is what the reference answers come from, so it is made alike each time: seeded, in eval mode, on the
CPU. Files that would have to be unpickled are refused, because that runs whatever code they hold.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.export import ExportedProgram

from autoglm_edge_converter.errors import BadModel, NotAModel, UserCodeFailed
from autoglm_edge_converter.roads.pytorch_blame import said
from autoglm_edge_converter.roads.pytorch_weights import check_finite, load_state
from autoglm_edge_converter.usercode import blamed_on, file_of, load_function

SEED = 0
FACTORY_SUFFIX = ".factory.json"

_GIVEN_UP = (
    "which PyTorch has given up: load the module in Python and save it with "
    "torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
)


@dataclass(frozen=True)
class Factory:
    """How a module is made: what a `.factory.json` holds."""

    reference: str
    """`module.py:factory`, with an absolute path."""
    state_dict: str | None
    inputs: tuple[str, ...]
    """Names of forward's arguments that are fed."""

    def write(self, path: Path) -> None:
        """Write the file that a runner opens. Raises OSError."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_factory(path: Path) -> Factory:
    """Read what `Factory.write` wrote. Raises OSError, ValueError, KeyError."""
    said_there = json.loads(path.read_text(encoding="utf-8"))
    return Factory(said_there["reference"], said_there["state_dict"], tuple(said_there["inputs"]))


def absolute(reference: str) -> str:
    """Return `module.py:factory` with the file's whole path."""
    return f"{file_of(reference)}:{reference.rpartition(':')[2]}"


def make_module(reference: str, state_dict: str | None) -> torch.nn.Module:
    """Make the module in eval mode on the CPU, weights loaded and finite.

    Raises UserCodeFailed, NotAModel, MissingWeights, BadOption, BrokenWeights.
    """
    factory = load_function(reference)
    torch.manual_seed(SEED)
    with blamed_on(file_of(reference)):
        module = factory()
    if not isinstance(module, torch.nn.Module):
        raise UserCodeFailed(f"{reference} gives {type(module).__name__}, not a torch.nn.Module: return the module")
    module = unwrapped(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise NotAModel(f"{reference} gives TorchScript, {_GIVEN_UP}")
    module = module.cpu()
    if state_dict is not None:
        load_state(module, Path(state_dict))
    check_finite(module.state_dict())
    return module.eval().requires_grad_(False)


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """Return what DataParallel, DistributedDataParallel and torch.compile put a shell around; an export goes inside."""
    parallel = isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel))
    inner = getattr(module, "module" if parallel else "_orig_mod", None)
    return unwrapped(inner) if isinstance(inner, torch.nn.Module) else module


def load_program(path: Path) -> ExportedProgram:
    """Load a `.pt2` file. Raises NotAModel, BadModel, BrokenWeights."""
    refuse_other_archives(path)
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise NotAModel(
            f"{path.name} cannot be loaded by torch.export.load of torch {torch.__version__}: {said(error)}: "
            "save it again with torch.export.save"
        ) from None
    _refuse_training(program, path)
    check_finite({**program.state_dict, **_tensors(program.constants)})
    return program


def _tensors(constants: Mapping[str, object]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in constants.items() if isinstance(value, torch.Tensor)}


def refuse_other_archives(path: Path) -> None:
    """Refuse what `torch.save` and TorchScript write. Raises NotAModel."""
    if not path.is_file():
        raise NotAModel(f"{path} is not a file: give a .pt2 file of torch.export.save, or module.py:factory")
    if not zipfile.is_zipfile(path):
        raise NotAModel(f"{path.name} is no archive of torch.export.save, or is cut short: export it again")
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    if any(name.startswith("code/") for name in names):
        raise NotAModel(f"{path.name} is TorchScript, {_GIVEN_UP}")
    if "data.pkl" in names:
        raise NotAModel(
            f"{path.name} is a pickle of torch.save, and reading a pickled module runs whatever code it holds: give "
            f"module.py:factory with --state-dict of its weights, or a .pt2 file of torch.export.save"
        )


def _refuse_training(program: ExportedProgram, path: Path) -> None:
    for node in program.graph.nodes:
        name = str(node.target)
        if name.startswith("aten.dropout.") and len(node.args) > 2 and node.args[2] is True:
            raise BadModel(f"{path.name} was exported in training mode (dropout): call model.eval() and export again")
        if name.startswith("aten.batch_norm.") and len(node.args) > 5 and node.args[5] is True:
            raise BadModel(
                f"{path.name} was exported in training mode (batch_norm): call model.eval() and export again"
            )
