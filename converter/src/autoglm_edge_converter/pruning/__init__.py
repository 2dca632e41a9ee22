"""Structured channel pruning of ONNX graphs without training code.

    known = study(proto, feeds)                     channels followed, layers' inputs observed
    path = plan_ratios(known, measure(known, judge))
    found = choose(known, path, judge, max_drop)    the smallest model within the budget

`find_groups` tells which channels are coupled and why others cannot be pruned; `prune` takes ratios as they are given.
Fractions of zeros without structure (`mask_smallest`) make a download smaller and nothing faster.
"""

from __future__ import annotations

from autoglm_edge_converter.pruning.groups import Group, find_groups
from autoglm_edge_converter.pruning.magnitude import mask_smallest
from autoglm_edge_converter.pruning.prune import GroupCut, PrunedModel, prune, prune_to
from autoglm_edge_converter.pruning.ratios import (
    Choice,
    Sensitivity,
    Step,
    at_fraction,
    choose,
    measure,
    plan_ratios,
)
from autoglm_edge_converter.pruning.study import Study, study

__all__ = [
    "Choice",
    "Group",
    "GroupCut",
    "PrunedModel",
    "Sensitivity",
    "Step",
    "Study",
    "at_fraction",
    "choose",
    "find_groups",
    "mask_smallest",
    "measure",
    "plan_ratios",
    "prune",
    "prune_to",
    "study",
]
