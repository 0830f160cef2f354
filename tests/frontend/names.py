"""Names that are programs, or that no program can hold; and nets that have them in every place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import torch
from torch import nn

# Breaks out of `getattr(self, "...")`, as torch writes it, and calls mkdir("OWNED") when the source is run.
PROGRAM = 'x")\rgetattr(__import__("os"),"system")("mkdir OWNED")\rdef f(self, *a):\r    pass #'
NEWLINES = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Affine(nn.Module):
    """A layer that finds its tensors where they are, whatever they are called."""

    def __init__(self, weight: str, bias: str, constant: str) -> None:
        super().__init__()
        self._parameters[weight] = nn.Parameter(torch.randn(4, 4))
        self._buffers[bias] = torch.randn(4)
        self.__dict__[constant] = torch.rand(4)
        self.constant = constant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (weight,) = list(self.parameters(recurse=False))[:1]
        (bias,) = self._buffers.values()
        return (x @ weight.T + bias) * self.__dict__[self.constant]


def net_with(names: list[str]) -> nn.Module:
    """A net with `names` for a child, a parameter, a buffer, an unused alias, and plain tensors, its own too."""
    torch.manual_seed(0)
    given: Iterator[str] = cycle(names)
    layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    for _ in names:
        layer = Affine(next(given), next(given), f"{next(given)} constant")
        layer._parameters[f"{next(given)} alias"] = next(layer.parameters())
        layers._modules[next(given)] = layer
        layers._modules[f"{next(given)} shared"] = layers[0]
    layers.__dict__[f"{next(given)} plain"] = torch.rand(4)
    return layers.eval()


def renamed(module: Any, places: str, names: dict[str, str]) -> Any:
    """`module` with other keys in `_modules`, `_parameters` or `_buffers`."""
    held = vars(module)[places]
    vars(module)[places] = {names.get(key, key): value for key, value in held.items()}
    return module
