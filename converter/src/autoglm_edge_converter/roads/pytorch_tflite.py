"""TFLite from PyTorch, by litert-torch: same layout (NCHW stays NCHW), same port names, fixed shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from autoglm_edge_converter.errors import MissingPackage
from autoglm_edge_converter.tflite.ports import rename_ports


def write_tflite(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    path: Path,
    ports: tuple[Sequence[str], Sequence[str]],
) -> str:
    """Write a float TFLite file with these names of inputs and outputs; return what made it.

    `args` and `kwargs` are one call of the module and give the fixed shapes. Raises MissingPackage, BadModel;
    errors of the converter pass through.
    """
    try:
        import litert_torch
    except ModuleNotFoundError as error:
        raise MissingPackage("TFLite files from PyTorch", "torch", error.name or "litert_torch") from None
    # Without it, 64-bit integers become 32-bit ones, and the ports are others than the original's.
    wide = any(value.dtype in (torch.int64, torch.float64) for value in pytree.tree_leaves((args, dict(kwargs))))
    made = litert_torch.convert(module, args, dict(kwargs) or None, enable_x64=wide)
    raw = path.with_suffix(".raw.tflite")
    made.export(str(raw))
    path.write_bytes(rename_ports(raw.read_bytes(), *ports))
    raw.unlink()
    return f"litert-torch {version('litert-torch')}"
