"""The released rules of Zhang et al. 2024 (papers.md B1, B2), layer by layer, over torch.autograd.

x (N, ...), R like the layer's output; biases never enter. `//` in the comments is a / (b + 1e-9), and 0 where b = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.oracles.root_search import Search, find_signal, gradient, hinge, ssim

Function = Callable[[Tensor], Tensor]


def safe_divide(a: Tensor, b: Tensor) -> Tensor:
    """a / (b + 1e-9) * [b != 0]."""
    return torch.where(b != 0, a / (b + 1e-9), torch.zeros_like(a))


def pull_back(f: Function, x: Tensor, R: Tensor) -> Tensor:
    """(df/dx)^T R."""
    return gradient(lambda v: (f(v) * R).sum(), x)


def with_softmax(f: Function, dims: int) -> Function:
    """Softmax over the last `dims` axes of f."""
    return lambda s: softmaxed(f(s), dims)


def softmaxed(y: Tensor, dims: int) -> Tensor:
    return y.flatten(-dims).softmax(-1).reshape(y.shape)


def dense(layer: Any, x: Tensor, R: Tensor, version: int) -> Tensor:
    W = layer.weight.detach()
    excitation = _half(x, W.clamp(min=0), W.clamp(max=0), R, version)
    if version == 3:
        return excitation
    if version == 2:
        return 0.5 * excitation
    return 0.5 * excitation + 0.1 * _half(x, W.clamp(max=0), W.clamp(min=0), R, version)


def _half(x: Tensor, W1: Tensor, W2: Tensor, R: Tensor, version: int) -> Tensor:
    x1, x2 = x.clamp(min=0), x.clamp(max=0)
    z1, z2 = functional.linear(x1, W1), functional.linear(x2, W2)
    total = z1.abs() + z2.abs()
    share = torch.where(total > 0, z1.abs() / total, 0.0)
    rest = torch.where(total > 0, z2.abs() / total, 0.0)
    lr = 3.0 if version == 1 else 1.0
    steps = {1: (50, 50), 2: (20, 20), 3: (1, 5)}[version]
    result = torch.zeros_like(x)
    for part, W, z, target, count in ((x1, W1, z1, R * share, steps[0]), (x2, W2, z2, R * rest, steps[1])):

        def answer(s: Tensor, W: Tensor = W) -> Tensor:
            return functional.linear(s, W)

        search = Search(hinge, count, lr, clamp=1.0)
        if version == 3:
            s = find_signal(answer, part, target, search)[0]
        else:
            s = find_signal(with_softmax(answer, 1), part, softmaxed(target, 1), search)[0]
        result = result + s * pull_back(answer, part, safe_divide(target, z))
    return result


def convolution(layer: Any, x: Tensor, R: Tensor, version: int) -> Tensor:
    W = layer.weight.detach()

    def by(weight: Tensor) -> Function:
        return lambda s: functional.conv2d(s, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)

    plus, minus, whole = by(W.clamp(min=0)), by(W.clamp(max=0)), by(W)
    if version == 3:
        s = find_signal(plus, x, R, Search(ssim, 5))[0]
        return s * pull_back(plus, x, R)
    if version == 2:
        s = find_signal(with_softmax(plus, 2), x, softmaxed(R, 2), Search(ssim, 20))[0]
        z1, z2 = plus(x), minus(x)
        total = z1.abs() + z2.abs()
        R1, R2 = (torch.where(total > 0, R * z.abs() / total, 0.0) for z in (z1, z2))
        return s * (pull_back(plus, x, safe_divide(R1, z1)) + pull_back(minus, x, safe_divide(R2, z2)))
    s = find_signal(with_softmax(whole, 2), x, softmaxed(R, 2), Search(ssim, 50, clamp=1.0))[0]
    root = x - s
    S = safe_divide(R, whole(s))
    pieces = [pull_back(whole, root + k * (s - root) / 50, S) * (s - root) / 50 for k in range(50)]
    return torch.stack(pieces).sum(0)


def first_convolution(layer: Any, x: Tensor, R: Tensor, version: int) -> Tensor:
    return convolution(layer, torch.ones_like(x), R, version)


def activation(f: Function, x: Tensor, R: Tensor) -> Tensor:
    """Both halves of x, for f with f(0) = 0."""
    result = torch.zeros_like(x)
    for part in (x.clamp(min=0), x.clamp(max=0)):
        s = find_signal(f, part, R, Search(hinge, 20, 3.0, "ones", decays=True))[0]
        point = part.clone().requires_grad_()
        slope = torch.autograd.grad(f(point).sum(), point, create_graph=True)[0]
        bend = torch.autograd.grad(slope.sum(), point)[0] if slope.requires_grad else torch.zeros_like(x)
        result = result + safe_divide(R, f(part)) * (slope.detach() * s + bend * s * s / 2)
    return result
