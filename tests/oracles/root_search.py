"""The root search of Zhang et al. 2024 as a loop over torch.autograd, and its losses as PyTorch has them.

papers.md B1 states the algorithm. Everything is done sample by sample, so a batch cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Function = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def hinge(y: Tensor, R: Tensor) -> Tensor:
    """Mean of max(0, 1 - y) + y = 1 + max(0, y - 1), whose gradient at y = 1 is 0.

    That is PyTorch's loss for targets R that are neither 1 nor -1. At y = 1 exactly its autograd gave 0 when the paper
    was written (the gradient of a clamp at its bound was 1); later versions give 1 there.
    """
    return (1.0 + torch.relu(y - 1.0)).mean()


def squared_error(y: Tensor, R: Tensor) -> Tensor:
    """mean (y - R)^2."""
    return functional.mse_loss(y, R)


def ssim(y: Tensor, R: Tensor) -> Tensor:
    """Mean SSIM of (1, C, H, W): an 11 x 11 Gaussian window, sigma 1.5, zero padding 5, every channel on its own."""
    offsets = torch.arange(11, dtype=y.dtype) - 5
    squares = offsets[:, None] ** 2 + offsets[None] ** 2
    window = torch.exp(-squares / (2 * 1.5**2))
    window = (window / window.sum()).expand(y.shape[1], 1, 11, 11)

    def average(v: Tensor) -> Tensor:
        return functional.conv2d(v, window, padding=5, groups=y.shape[1])

    mean_y, mean_R = average(y), average(R)
    variance_y, variance_R = average(y * y) - mean_y**2, average(R * R) - mean_R**2
    covariance = average(y * R) - mean_y * mean_R
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_y * mean_R + c1) * (2 * covariance + c2)
    return (numerator / ((mean_y**2 + mean_R**2 + c1) * (variance_y + variance_R + c2))).mean()


class Search(NamedTuple):
    """One routine of B1."""

    loss: Loss
    steps: int
    lr: float = 1.0
    start: str = "input"
    sign: float = 1.0
    clamp: float | None = None
    decays: bool = False
    project: Callable[[Tensor, Tensor], Tensor] | None = None


def find_signal(f: Function, x: Tensor, R: Tensor, search: Search) -> tuple[Tensor, Tensor, Tensor]:
    """The signals s (N, ...) of x (N, ...), and the losses (N,) at the first and the last signal."""
    found = [_of_one(f, x[n : n + 1], R[n : n + 1], search) for n in range(len(x))]
    signals, before, after = zip(*found, strict=True)
    return torch.cat(signals), torch.stack(before), torch.stack(after)


def _of_one(f: Function, x: Tensor, R: Tensor, search: Search) -> tuple[Tensor, Tensor, Tensor]:
    s = {"input": x, "ones": torch.ones_like(x), "zeros": torch.zeros_like(x)}[search.start].clone()
    lr = torch.full_like(x, search.lr)
    before = search.loss(f(s), R).detach()
    for _ in range(search.steps):
        step = search.sign * gradient(lambda v: search.loss(f(v), R), s)
        if search.clamp is not None:
            step = step.clamp(max=search.clamp)
        s = s - lr * step
        if search.project is not None:
            s = search.project(s, x)
        if search.decays:
            difference = (gradient(lambda v: f(v).sum(), x) - gradient(lambda v: f(v).sum(), x - s)).abs()
            lr = lr * 10.0 ** -torch.clamp(10 * (difference - 0.15), min=0)
    return s, before, search.loss(f(s), R).detach()


def gradient(scalar: Function, at: Tensor) -> Tensor:
    """d scalar / d at."""
    point = at.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(scalar(point), point)
    return slope
