"""Methods that compare, average or weight several backward passes, one sample and one pass at a time, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.affine import z_plus
from tests.oracles.network import Rules, Step, forward, propagate


def contrastive_lrp(steps: Sequence[Step], x: Tensor, target: Tensor, rules: Rules) -> Tensor:
    """max(0, n(R(y_k)) - n(R(y_notk))), y_k = y (.) onehot, n = divide a sample's map by its sum (P1 M18)."""
    values = forward(steps, x)
    output = steps[-1].name
    y, maps = values[output], list[Tensor]()
    onehot = nn.functional.one_hot(target, y.shape[1])
    for chosen in (onehot, 1 - onehot):
        R = propagate(steps, values, {output: y * chosen}, rules)["input"].detach()
        maps.append(torch.stack([sample / sample.sum() for sample in R]))
    return (maps[0] - maps[1]).clamp(min=0)


def excitation_less_inhibition(x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, eps: float) -> Tensor:
    """(Z+ - N+) R, N+ the z+ rule with -W (P1 M19)."""
    excitation = z_plus(x, W, b, R, bias="none", eps=eps)
    return excitation - z_plus(x, -W, b, R, bias="none", eps=eps)


def gradient(model: Callable[[Tensor], Tensor], sample: Tensor, target: int) -> Tensor:
    """Gradient of one logit of one sample."""
    leaf = sample.detach().clone().requires_grad_()
    return torch.autograd.grad(model(leaf[None])[0, target], leaf)[0]


def smoothgrad(model: Callable[[Tensor], Tensor], x: Tensor, target: Tensor, noise: Tensor, level: float) -> Tensor:
    """Mean over i of the gradient at x + sigma noise_i, sigma = level (max x - min x) of the sample (P1 M2)."""
    maps = list[Tensor]()
    for sample, chosen, copies in zip(x, target.tolist(), noise, strict=True):
        sigma = level * (max(sample.flatten().tolist()) - min(sample.flatten().tolist()))
        gradients = [gradient(model, sample + sigma * copy, chosen) for copy in copies]
        maps.append(sum(gradients, torch.zeros_like(sample)) / len(gradients))
    return torch.stack(maps)


def integrated_gradients(model: nn.Module, x: Tensor, target: Tensor, steps: int, baseline: Any) -> Tensor:
    """(x - x0) times the mean gradient at the midpoints of `steps` equal parts of the way from x0 to x."""
    maps = list[Tensor]()
    for sample, chosen in zip(x, target.tolist(), strict=True):
        start = torch.zeros_like(sample) + baseline
        total = torch.zeros_like(sample)
        for k in range(steps):
            total = total + gradient(model, start + (k + 0.5) / steps * (sample - start), chosen)
        maps.append((sample - start) * total / steps)
    return torch.stack(maps)


def grad_cam(tail: nn.Module, A: Tensor, target: Tensor, size: tuple[int, int]) -> Tensor:
    """max(0, sum_c w_c A_c), w_c the mean gradient of the logit over channel c, at the input's size; (N, 1, H, W).

    `tail` is the network above the feature map A (N, C, h, w).
    """
    maps = list[Tensor]()
    for sample, chosen in zip(A.detach(), target.tolist(), strict=True):
        slopes = gradient(tail, sample, chosen)
        weighted = [float(slope.mean()) * channel for slope, channel in zip(slopes, sample, strict=True)]
        coarse = sum(weighted, torch.zeros_like(sample[0])).clamp(min=0)
        rows, columns = (interpolation(*ends) for ends in zip(size, coarse.shape, strict=True))
        maps.append((rows @ coarse @ columns.T)[None])
    return torch.stack(maps)


def interpolation(fine: int, coarse: int) -> Tensor:
    """Linear interpolation along one axis as a matrix (fine, coarse): pixel centres are at half numbers."""
    matrix = torch.zeros(fine, coarse, dtype=torch.float64)
    for i in range(fine):
        place = max((i + 0.5) * coarse / fine - 0.5, 0.0)
        left = min(int(place), coarse - 1)
        right = min(left + 1, coarse - 1)
        matrix[i, left] += 1 - (place - left)
        matrix[i, right] += place - left
    return matrix
