"""The small residual network that questions about layers are asked of."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import relcompile


class Residual(nn.Module):
    """Two blocks, one with a branch; a pool; five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(2, 4, 3, padding=1), nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.joined, self.pool = nn.ReLU(), nn.MaxPool2d(2)
        self.deep, self.head = nn.Conv2d(4, 3, 3), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x).relu()
        joined = self.joined(stem + self.branch(stem))
        return self.head(self.deep(self.pool(joined)).relu().mean((2, 3)))


def residual() -> nn.Module:
    """The same weights every time, in float64."""
    torch.manual_seed(0)
    return Residual().double()


X = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGET = torch.tensor([1, 4, 0])


@cache
def captured() -> relcompile.CapturedModel:
    """`residual()` on `X`: whoever asks it another question looks at it only once."""
    return relcompile.capture(residual(), X)


def needs(rule: str) -> dict[str, Any]:
    """What else the rule has to be given."""
    return {"bounds": (-5.0, 4.0)} if rule in ("epsilon-gamma-box", "montavon", "zb") else {}
