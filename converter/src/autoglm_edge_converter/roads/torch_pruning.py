"""Pruning a factory's module with training between the steps: `--finetune module.py:function` with `--prune 0.4`.

torch-pruning finds the groups of channels that must go together; the least important go first, by the norm of all
weights of their group (DepGraph: Fang et al., CVPR 2023). After each step of the schedule the user's function trains
the module. Output layers keep their width, so the ports stay. How good the result is, the caller measures.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from autoglm_edge_converter.errors import BadOption, MissingPackage
from autoglm_edge_converter.roads.finetuning import Finetuning
from autoglm_edge_converter.roads.pruning_schedule import LARGEST_CHANNEL_RATIO, channel_ratio
from autoglm_edge_converter.roads.pytorch_blame import said
from autoglm_edge_converter.roads.pytorch_examples import Examples
from autoglm_edge_converter.roads.pytorch_loading import SEED
from autoglm_edge_converter.roads.pytorch_originals import TorchOriginal, from_module
from autoglm_edge_converter.roads.pytorch_renditions import renditions
from autoglm_edge_converter.roads.pytorch_weights import check_finite

Step = Callable[[str], None]

_LAYERS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Linear)


def pruned_renditions(
    original: TorchOriginal, finetuning: Finetuning, scratch: Path, formats: Sequence[str], step: Step, opset: int
) -> list[dict[str, object]]:
    """Prune, train and write the float files of the result; `pruning` in each is what was really taken out.

    Raises BadOption, MissingPackage, UserCodeFailed, BrokenWeights, ModelDoesNotRun.
    """
    module, pruning = prune(original.module, original.examples, finetuning, step)
    pruned = from_module(module, original.examples, original.runnable)
    return renditions(pruned, scratch / "pruned", formats, step, opset, round(pruning, 4))


def prune(
    module: torch.nn.Module, examples: Examples, finetuning: Finetuning, step: Step
) -> tuple[torch.nn.Module, float]:
    """Return a pruned, trained copy of a module, and the fraction of the multiplications that is gone.

    Raises BadOption where nothing can be pruned, MissingPackage, UserCodeFailed, BrokenWeights.
    """
    train = finetuning.trainer(torch.nn.Module, "the module")
    before = multiplications(module, examples)
    pruned = copy.deepcopy(module).requires_grad_(True)
    removed = 0.0
    for number, target in enumerate(finetuning.schedule.targets(), 1):
        pruned = _reach(pruned, examples, before, target)
        removed = 1 - multiplications(pruned, examples) / before
        torch.manual_seed(SEED + number)
        with torch.enable_grad():
            pruned = train(pruned.train())
        check_finite(pruned.state_dict())
        step(f"pruned {removed:.0%} of the multiplications, trained ({number} of {finetuning.schedule.steps})")
    if removed <= 0:
        raise BadOption("--prune: no channels of this module can be taken out: leave --finetune away")
    return pruned.eval().requires_grad_(False), removed


def multiplications(module: torch.nn.Module, examples: Examples) -> int:
    """Return the multiplications of convolutions and matrix products in one call, biases and the rest left out."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(*examples.args, **examples.kwargs)
    return int(counter.get_total_flops()) // 2


def _reach(module: torch.nn.Module, examples: Examples, before: int, target: float) -> torch.nn.Module:
    """Return a copy of a module with as many channels less as bring it to the target; itself where it is there."""
    if 1 - multiplications(module, examples) / before >= target:
        return module

    def removed(ratio: float) -> float:
        return 1 - multiplications(_without(module, examples, ratio), examples) / before

    return _without(module, examples, channel_ratio(target, removed))


def _without(module: torch.nn.Module, examples: Examples, ratio: float) -> torch.nn.Module:
    """Return a copy with this ratio of the channels of each group taken out."""
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        raise MissingPackage("--finetune and --prune", "torch", error.name or "torch_pruning") from None
    copied = copy.deepcopy(module).eval()
    given: Any = examples.tensors if examples.kwargs else examples.args
    try:
        pruner = torch_pruning.pruner.BasePruner(
            copied,
            dict(given) if examples.kwargs else given,
            forward_fn=_call_with_all_layers,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=ratio,
            max_pruning_ratio=LARGEST_CHANNEL_RATIO,
            ignored_layers=_last_layers(copied, examples),
        )
        pruner.step()
        copied(*examples.args, **examples.kwargs)
    except Exception as error:
        raise BadOption(f"--prune: torch-pruning cannot take channels out of this module: {said(error)}") from None
    return copied


def _call_with_all_layers(module: torch.nn.Module, given: Any) -> list[Any]:
    """Call a module and return, with its outputs, what each layer gave.

    A layer whose answer no output needs is called all the same, and has to lose the channels that what it reads loses.
    """
    answers: list[Any] = []
    layers = [layer for layer in module.modules() if isinstance(layer, _LAYERS)]
    hooks = [layer.register_forward_hook(lambda _, __, answer: answers.append(answer)) for layer in layers]
    try:
        outputs = module(**given) if isinstance(given, dict) else module(*given)
    finally:
        for hook in hooks:
            hook.remove()
    return [outputs, *answers]


def _last_layers(module: torch.nn.Module, examples: Examples) -> list[torch.nn.Module]:
    """Return the layers whose channels are the outputs' channels: those that no later layer reads from."""
    from autoglm_edge_converter.roads.pytorch_ports import named_outputs

    owners: dict[int, torch.nn.Module] = {
        id(parameter): layer
        for layer in module.modules()
        if isinstance(layer, _LAYERS)
        for parameter in layer.parameters()
    }
    with torch.enable_grad():
        outputs = named_outputs(module.requires_grad_(True)(*examples.args, **examples.kwargs))
    pending = [output.grad_fn for output in outputs.values() if output.grad_fn is not None]
    found, seen = [], set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        nexts = [following for following, _ in node.next_functions if following is not None]
        reached = {
            id(owners[id(n.variable)]): owners[id(n.variable)] for n in _leaves(nexts) if id(n.variable) in owners
        }
        found += list(reached.values())
        pending += [] if reached else nexts
    return found


def _leaves(nodes: Sequence[Any]) -> list[Any]:
    """Return the accumulators of parameters among nodes and right behind their transpositions."""
    direct = [node for node in nodes if hasattr(node, "variable")]
    behind = [f for node in nodes if node.name().startswith("TBackward") for f, _ in node.next_functions]
    return direct + [node for node in behind if node is not None and hasattr(node, "variable")]
