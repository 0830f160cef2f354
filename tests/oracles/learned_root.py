"""The learned root in matrices: the loss by torch.autograd, every contribution written out, sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.oracles.affine import contributions, positive, share


def learned_root(
    x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, steps: int, gamma: float, shared: bool, eps: float
) -> Tensor:
    """R_in (N, J): direction x + gamma s on the weights of the unit's own sign; then what is missing, in proportion."""
    z = x @ W.T + b
    s = torch.cat([signal(x[n], W, b, R[n] / z[n], steps) for n in range(len(x))])
    own = contributions(s, W)
    own = torch.where((own > 0) == (z[:, :, None] > 0), own, 0.0)
    own_bias = torch.where((b > 0) == (z > 0), b, 0.0)
    numerator = contributions(x, W) + gamma * own
    relevance = share(numerator, numerator.sum(2) + b + gamma * own_bias, R, eps)
    if not shared:
        return relevance
    return torch.stack([handed_back(r, total) for r, total in zip(relevance, R.sum(1), strict=True)])


def signal(x: Tensor, W: Tensor, b: Tensor, m: Tensor, steps: int) -> Tensor:
    """s = u x (1, J) after descent of 1/2 sum |m| (z - W(u x))^2 over u in the unit box.

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
    return (u * x)[None]


def handed_back(relevance: Tensor, total: Tensor) -> Tensor:
    """Add what is missing from `total` to the relevances of its sign, in proportion to them."""
    missing = total - relevance.sum()
    takers = positive(relevance * missing.sign()) * missing.sign()
    return relevance if takers.sum() == 0 else relevance + missing * takers / takers.sum()
