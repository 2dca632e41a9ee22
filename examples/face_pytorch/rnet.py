"""R-Net, the second stage of the face detector MTCNN (Zhang et al., 2016), as facenet-pytorch 2.6.0 has it.

The layers are those of `facenet_pytorch.models.mtcnn.RNet`, Copyright (c) 2019 Timothy Esler, MIT licence. The class
stands here because importing that package needs torchvision; the weights are read from the installed package.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn


class RNet(nn.Module):
    """Takes `x`, float32 [N,3,24,24] in -1..1; gives corrections of a box [N,4] and not-face, face shares [N,2]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, kernel_size=3)
        self.prelu1 = nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(28, 48, kernel_size=3)
        self.prelu2 = nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(48, 64, kernel_size=2)
        self.prelu3 = nn.PReLU(64)
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.softmax5_1 = nn.Softmax(dim=1)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the answers by name."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = x.permute(0, 3, 2, 1).contiguous()
        x = self.prelu4(self.dense4(x.view(x.shape[0], -1)))
        return {"box": self.dense5_2(x), "face": self.softmax5_1(self.dense5_1(x))}


def weights() -> Path:
    """Return the state dict that the installed package facenet-pytorch ships. Raises ModuleNotFoundError."""
    # Not imported: the package imports torchvision.
    found = importlib.util.find_spec("facenet_pytorch")
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError("facenet_pytorch is missing: pip install --no-deps facenet-pytorch==2.6.0")
    return Path(found.submodule_search_locations[0]) / "data" / "rnet.pt"


def rnet() -> RNet:
    """Return the network with its weights."""
    network = RNet()
    network.load_state_dict(torch.load(weights(), weights_only=True))
    return network


def face_only() -> nn.Module:
    """Return the network with the shares alone, whose accuracy can be measured against labels."""

    class FaceOnly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = rnet()

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            face: torch.Tensor = self.network(x)["face"]
            return {"face": face}

    return FaceOnly()
