"""Kernels of convolutions as data, and their sum. A linear layer is a kernel without spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

import torch


@dataclass(frozen=True)
class Kernel:
    """`z[o, p] = Σ_i Σ_j weight[o, i, j] x[i, stride p + start + step j] + bias[o]`, x = 0 outside.

    Attributes:
        weight: (O, I / groups, k...), float64.
        bias: (O,), float64.
        start: where the window begins, for each spatial axis: minus the padding.
        step: the dilation, for each spatial axis.
        groups: channels are taken in so many parts.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    start: tuple[int, ...]
    step: tuple[int, ...]
    groups: int

    @property
    def end(self) -> tuple[int, ...]:
        """The last position of the window, for each spatial axis."""
        sizes = self.weight.shape[2:]
        return tuple(a + d * (k - 1) for a, d, k in zip(self.start, self.step, sizes, strict=True))

    def scaled(self, factor: torch.Tensor) -> Kernel:
        """Every output times its number in `factor` (O,)."""
        weight = self.weight * factor.reshape(-1, *[1] * (self.weight.dim() - 1))
        return replace(self, weight=weight, bias=self.bias * factor)

    def shifted(self, shift: torch.Tensor) -> Kernel:
        """Every output plus its number in `shift` (O,)."""
        return replace(self, bias=self.bias + shift)

    def in_groups(self, groups: int) -> torch.Tensor:
        """The weight with `groups`, a divisor of its own number of groups: zeros fill the places between."""
        outputs, own = self.weight.shape[:2]
        inputs, position = own * self.groups, torch.arange(outputs, device=self.weight.device)
        first = position // (outputs // self.groups) * own - position // (outputs // groups) * (inputs // groups)
        wide = self.weight.new_zeros(outputs, inputs // groups, *self.weight.shape[2:])
        wide[position[:, None], first[:, None] + torch.arange(own, device=first.device)] = self.weight
        return wide


def identity(channels: int, axes: int) -> Kernel:
    """The map z = x."""
    weight = torch.ones([channels, 1, *[1] * axes], dtype=torch.float64)
    return Kernel(weight, torch.zeros(channels, dtype=torch.float64), (0,) * axes, (1,) * axes, channels)


def total(kernels: Sequence[Kernel]) -> Kernel:
    """The sum of maps with one stride and the same number of channels."""
    groups = gcd(*(kernel.groups for kernel in kernels))
    start = tuple(map(min, zip(*(kernel.start for kernel in kernels), strict=True)))
    end = tuple(map(max, zip(*(kernel.end for kernel in kernels), strict=True)))
    step = tuple(_common_step(kernels, axis, first) for axis, first in enumerate(start))
    sizes = [(b - a) // d + 1 for a, b, d in zip(start, end, step, strict=True)]
    weights = [kernel.in_groups(groups) for kernel in kernels]
    weight = weights[0].new_zeros(*weights[0].shape[:2], *sizes)
    for kernel, part in zip(kernels, weights, strict=True):
        weight[(..., *_places(kernel, start, step))] += part
    bias = torch.stack([kernel.bias for kernel in kernels]).sum(0)
    return Kernel(weight, bias, start, step, groups)


def _common_step(kernels: Sequence[Kernel], axis: int, first: int) -> int:
    steps = [kernel.step[axis] for kernel in kernels if kernel.weight.shape[2 + axis] > 1]
    return gcd(*steps, *(kernel.start[axis] - first for kernel in kernels)) or 1


def _places(kernel: Kernel, start: tuple[int, ...], step: tuple[int, ...]) -> list[slice]:
    """Where the window of `kernel` lies in one that begins at `start`."""
    ends = zip(kernel.start, kernel.end, kernel.step, kernel.weight.shape[2:], start, step, strict=True)
    return [slice((a - s) // d, (b - s) // d + 1, own // d if k > 1 else 1) for a, b, own, k, s, d in ends]
