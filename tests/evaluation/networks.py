"""Small networks whose truth is known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def small_cnn(seed: int = 0, channels: int = 3, size: int = 12, classes: int = 5) -> nn.Sequential:
    """Two convolutions, a pool, two dense layers; biases of both signs."""
    torch.manual_seed(seed)
    layers = (
        nn.Conv2d(channels, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
    )
    dense = (nn.Flatten(), nn.Linear(8 * (size // 2) ** 2, 12), nn.ReLU(), nn.Linear(12, classes))
    return nn.Sequential(*layers, *dense).eval()


class BatchNormed(nn.Module):
    """Batch norms behind convolutions, a residual connection, average pooling."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)
        for norm in (self.bn1, self.bn2):
            nn.init.normal_(norm.get_buffer("running_mean"), std=0.3)
            nn.init.uniform_(norm.get_buffer("running_var"), 0.5, 2.0)
        self.train(False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(torch.relu(self.bn2(self.conv2(y)) + y).mean((2, 3)))


def planted(size: int = 16, patch: int = 4) -> tuple[nn.Module, Tensor, np.ndarray]:
    """A network set by hand that counts bright patches in the upper left, pictures, and where those pixels are.

    Class 0 is the mean of the upper left square, less 0.25; class 1 is 0. Everything else in the picture is noise that
    no weight reads: the truth is the square.
    """
    network = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 2), nn.ReLU(), nn.Linear(2, 2))
    weights = torch.zeros(2, size, size)
    weights[0, :patch, :patch] = 1 / patch**2
    weights[1] = 0.01 / size**2  # reads everything, and is used by the other class alone
    network.get_parameter("1.weight").data = weights.flatten(1)
    network.get_parameter("1.bias").data.zero_()
    network.get_parameter("3.weight").data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    network.get_parameter("3.bias").data.zero_()
    images = torch.rand(6, 1, size, size, generator=torch.Generator().manual_seed(0))
    masks = np.zeros((6, size, size), bool)
    masks[:, :patch, :patch] = True
    return network.eval(), images, masks
