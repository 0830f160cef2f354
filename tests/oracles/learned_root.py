"""Learned roots in matrices: the loss by torch.autograd, every contribution written out, sample by sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tests.oracles.affine import contributions, epsilon, gamma_generalised, positive

Function = Callable[[Tensor], Tensor]


def alone(x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, gamma: float, shared: bool, eps: float) -> Tensor:
    """R_in (N, J) of a layer that no activation follows: LRP-gamma, then what is missing, in proportion."""
    if gamma:
        relevance = gamma_generalised(x, W, b, R, g=gamma, bias="scaled", eps=eps)
    else:
        relevance = epsilon(x, W, b, R, eps=eps, bias="full")
    return _shared(relevance, R) if shared else relevance


def under_activation(
    x: Tensor, W: Tensor, b: Tensor, m: Tensor, f: Function, *, kappa: float, steps: int, shared: bool
) -> Tensor:
    """R_in (N, J) of y = f(W x + b) that arrives as m y: m (A c + B c s / x) of every contribution c = w x."""
    z = x @ W.T + b
    c = contributions(x, W)
    A, B = expansion(z, (c**2).sum(2) + b**2, f, kappa)
    s = torch.stack([signal(x[n], W, b, (m * (A + B * z))[n], steps) for n in range(len(x))])
    of_signal = contributions(s, W)
    relevance = (m[:, :, None] * (A[:, :, None] * c + B[:, :, None] * c * of_signal)).sum(1)
    return _shared(relevance, m * (f(z) - f(torch.zeros_like(z)))) if shared else relevance


def expansion(z: Tensor, V: Tensor, f: Function, kappa: float) -> tuple[Tensor, Tensor]:
    """A and B: the mean slope, and what is left of f(z) - f(0) per unit of V."""
    zero = f(torch.zeros_like(z))
    up, down = (f(z.abs()) - zero) / z.abs(), (zero - f(-z.abs())) / z.abs()
    A = down + (up - down) * (0.5 + z / (z.abs() + torch.sqrt(z**2 + kappa * V)))
    return A, (f(z) - zero - A * z) / V


def signal(x: Tensor, W: Tensor, b: Tensor, m: Tensor, steps: int) -> Tensor:
    """s = u x (J,) after descent of 1/2 sum |m| (z - W(u x))^2 over u in the unit box.

    Each step projects a gradient step, scaled by 1 / (|x| |W|T |m| |W| |x|), then goes to the least loss on its line.
    """
    z, rho = W @ x + b, m.abs()
    u = torch.ones_like(x) if steps == 0 else torch.zeros_like(x)
    curvature = x.abs() * (W.abs().T @ (rho * (W.abs() @ x.abs())))
    for _ in range(steps):
        point = u.clone().requires_grad_()
        loss = (rho * (z - W @ (point * x)) ** 2).sum() / 2
        (slope,) = torch.autograd.grad(loss, point)
        moved = torch.where(curvature > 0, slope / torch.where(curvature > 0, curvature, 1.0), 0.0)
        d = (u - moved).clamp(0, 1) - u
        answer = W @ (d * x)
        most = (rho * answer**2).sum()
        length = (rho * answer * (z - W @ (u * x))).sum() / most if most > 0 else 0.0
        u = (u + length * d).clamp(0, 1)
    return u * x


def _shared(relevance: Tensor, R: Tensor) -> Tensor:
    return torch.stack([handed_back(r, total) for r, total in zip(relevance, R.sum(1), strict=True)])


def handed_back(relevance: Tensor, total: Tensor) -> Tensor:
    """Add what is missing from `total` to the relevances of its sign, in proportion to them."""
    missing = total - relevance.sum()
    takers = positive(relevance * missing.sign()) * missing.sign()
    return relevance if takers.sum() == 0 else relevance + missing * takers / takers.sum()


def shapley(c: Tensor, f: Function) -> Tensor:
    """What every contribution c (J,) adds to f of the sum, on average over all orders in which they may come."""
    count = len(c)
    coalitions = torch.tensor([[(k >> j) & 1 for j in range(count)] for k in range(2**count)], dtype=c.dtype)
    sizes = coalitions.sum(1)
    ways = torch.lgamma(sizes + 1) + torch.lgamma(count - sizes) - torch.lgamma(torch.tensor(count + 1.0))
    values = f(coalitions @ c)
    gained = [values[coalitions[:, j] == 1] - values[coalitions[:, j] == 0] for j in range(count)]
    weights = [ways[coalitions[:, j] == 0].exp() for j in range(count)]
    return torch.stack([(weight * gain).sum() for weight, gain in zip(weights, gained, strict=True)])
