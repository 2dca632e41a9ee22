# mypy: disallow-subclassing-any=False
"""Factories of small networks of several kinds, given to the road as `networks.py:NAME`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.two = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.past = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.past(x) + self.two(self.one(x)))


def resnet() -> nn.Module:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), Residual(16, 16, 1), Residual(16, 32, 2), head)


class Inverted(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 4 * channels
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()),
            *(nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.Hardswish()),
            *(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.layers(x)
        return added


def mobilenet() -> nn.Module:
    body = (nn.Conv2d(3, 8, 3, 2, 1), nn.Hardswish(), Inverted(8), Inverted(8))
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 10))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(32, 5)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"logits": self.last(self.layers(self.embedding(tokens)).mean(1))}


def transformer() -> nn.Module:
    return Encoder()


class Pictures(nn.Module):
    """Takes pictures of any size from 5x5 on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.layers(x).mean((2, 3)))
        return scores


def pictures() -> nn.Module:
    return Pictures()


class Flagged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        y: Tensor = self.layer(x)
        return self.layer(y) if twice else y


class Remembering(nn.Module):
    mean: Tensor
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 4))
        self.register_buffer("calls", torch.zeros(1))
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        self.mean.mul_(0.5).add_(x)
        y: Tensor = self.layer(self.mean)
        return y


def remembering() -> nn.Module:
    return Remembering()


class Counting(nn.Module):
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        y: Tensor = self.layers(x)
        return y


def counting() -> nn.Module:
    return Counting()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True)
        self.last = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        steps, (hidden, _) = self.cells(x)
        return self.last(steps[:, -1]), hidden


def lstm() -> nn.Module:
    return Recurrent()


class Answer(NamedTuple):
    total: Tensor
    difference: Tensor


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, left: Tensor, right: Tensor, scale: float = 2.0) -> Answer:
        return Answer(self.layer(left) + right * scale, left - right)


def two_inputs() -> nn.Module:
    return TwoInputs()


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        if y.sum() > 0:  # the line that is refused
            return y
        return -y


def branching() -> nn.Module:
    return Branching()


class Unexportable(nn.Module):
    """Asks what torch.export cannot answer, and tracing can."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y if y.data_ptr() else -y


def unexportable() -> nn.Module:
    return Unexportable()


def not_a_number() -> nn.Module:
    layer = nn.Linear(4, 4)
    nn.init.constant_(layer.bias, float("nan"))
    return layer


def linear() -> nn.Module:
    return nn.Linear(4, 4)


def parallel() -> nn.Module:
    return nn.DataParallel(nn.Linear(4, 4))


def compiled() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of what torch.compile imports
        return nn.DataParallel(torch.compile(nn.Linear(4, 4)))


def scripted() -> nn.Module:
    return torch.jit.script(nn.Linear(4, 4))


def no_module() -> int:
    return 3


def broken() -> nn.Module:
    raise RuntimeError("no such thing")


def train(module: nn.Module) -> None:
    """Teach a network of pictures to answer nought, for three steps; leaves a mark for each call."""
    optimiser = torch.optim.SGD(module.parameters(), 1e-3)
    for _ in range(3):
        optimiser.zero_grad()
        module(torch.randn(4, 3, 32, 32)).pow(2).mean().backward()
        optimiser.step()


def train_badly(module: nn.Module) -> None:
    raise ValueError(f"no data beside {Path(__file__).name}")
