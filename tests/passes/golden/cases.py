"""The networks whose explainer graphs are read: each shows one thing, with as few nodes as that takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import relcompile

FOLDER = Path(__file__).parent
IMAGE, ROW = (2, 4, 4), (4,)


class Function(nn.Module):
    """A function of the input and of two convolutions that keep its shape; its mean over the image is the score."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function
        self.a, self.b = (nn.Conv2d(2, 2, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.a, self.b).mean((2, 3))


@dataclass(frozen=True)
class Case:
    """A network, the shape of one sample, a rule, and what else `compile` is told."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    rule: str
    settings: dict[str, Any] = field(default_factory=dict)

    def graph(self) -> GraphModule:
        """The compiled explainer's graph."""
        torch.manual_seed(0)
        x = torch.rand(2, *self.shape, dtype=torch.float64)
        return relcompile.compile(self.build().double(), x, rule=self.rule, **self.settings).graph_module


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


def pooled(pool: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(8, 2))


def residual(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    stem = a(x).relu()
    return (stem + b(stem).relu()).relu()


def concatenated(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    return torch.cat([a(x).relu(), b(x).relu()], 1)


def gated(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    return a(x).relu() * b(x).sigmoid()


CASES: dict[str, Case] = {
    "dense, gradient": Case(dense, ROW, "gradient"),
    "dense, epsilon": Case(dense, ROW, "epsilon"),
    "dense, epsilon, argmax and absorbed": Case(dense, ROW, "epsilon", {"target": "argmax", "absorbed": True}),
    "dense, deeplift-rescale": Case(dense, ROW, "deeplift-rescale", {"reference": "input"}),
    "dense, root": Case(dense, ROW, "root"),
    "convolution, z+": Case(convolution, IMAGE, "z+"),
    "convolution, alpha2beta1": Case(convolution, IMAGE, "alpha2beta1"),
    "convolution, dtd": Case(convolution, IMAGE, "dtd", {"bounds": (0.0, 1.0)}),
    "convolution, smoothgrad": Case(convolution, IMAGE, "smoothgrad"),
    "batch norm, gamma": Case(normalised, IMAGE, "gamma"),
    "max pool, z+": Case(pooled(nn.MaxPool2d(2)), IMAGE, "z+"),
    "average pool, w2": Case(pooled(nn.AvgPool2d(2)), IMAGE, "w2"),
    "residual, z+": Case(lambda: Function(residual), IMAGE, "z+"),
    "concatenation, epsilon": Case(lambda: Function(concatenated), IMAGE, "epsilon"),
    "gate, epsilon": Case(lambda: Function(gated), IMAGE, "epsilon"),
    "grad-cam": Case(convolution, IMAGE, "grad-cam"),
}


def path_of(name: str) -> Path:
    """Where the printed graph of a case is kept."""
    return FOLDER / f"{name.replace(', ', '.').replace(' ', '-')}.txt"
