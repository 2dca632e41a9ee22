"""A function that a test gives with `--finetune` for R-Net."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[3] / "examples" / "face_pytorch"))

from prepare import crops  # type: ignore[import-not-found,unused-ignore]  # beside the example
from rnet import face_only  # type: ignore[import-not-found,unused-ignore]  # beside the example

STEPS = 40


def train(network: nn.Module) -> None:
    """Learn the original's answers to the second half of the crops, for a few steps."""
    pictures = torch.from_numpy(crops()[0][100:])
    with torch.no_grad():
        answers = face_only().eval()(pictures)["face"]
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(STEPS):
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy(network(pictures)["face"], answers).backward()
        optimiser.step()
    network.eval()
