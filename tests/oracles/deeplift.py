"""DeepLIFT (Shrikumar et al. 2017; papers.md A2 M15-M17) in explicit matrices and float64.

Every value carries D = value - reference value and its contributions D+, D- (D = D+ + D-). What travels
backwards is a pair of multipliers (m+, m-); the map at a value is m+ D+ + m- D-. Where the paper is silent
(near-zero thresholds, shifts) this follows deeplift 0.6, `layers/activations.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tests.oracles import local, network
from tests.oracles.affine import negative, positive

NEAR_ZERO = 1e-7
Variant = Literal["full", "ablation_code", "ablation_text"]
Maxima = Literal["gradient", "crossed"]
Nonlinearity = Literal["rescale", "reveal_cancel"]
Rule = Nonlinearity | Mapping[str, Nonlinearity]  # of all activations, or of each step


class Pair(NamedTuple):
    """The positive and the negative part of a contribution or of a multiplier."""

    plus: Tensor
    minus: Tensor


def linear_contributions(D: Tensor, W: Tensor) -> Pair:
    """D+_k = sum_j w+_kj D_j+ + w-_kj D_j-;  D-_k = sum_j w+_kj D_j- + w-_kj D_j+ (no bias)."""
    z = D[:, None, :] * W[None]  # (N, K, J)
    return Pair(positive(z).sum(2), negative(z).sum(2))


def linear_multiplier(D: Tensor, W: Tensor, m: Pair, *, variant: Variant) -> Tensor:
    """Multiplier (N, J) of an affine map's input, the same for its D+ and its D-; m (N, K).

    full: D > 0: W+^T m+ + W-^T m-; D < 0: W-^T m+ + W+^T m-; D = 0: W^T (m+ + m-) / 2.
    ablation_code (P1's code): the cross terms go. D > 0: W+^T m+; D < 0: W+^T m-; D = 0 as in full.
    ablation_text (P1's text): W+ for the positive, W- for the negative chain. D > 0: W+^T m+; D < 0: W-^T m-.
    """
    p, n = positive(W), negative(W)
    zero = (m.plus + m.minus) @ W / 2.0
    above, below = {
        "full": (m.plus @ p + m.minus @ n, m.plus @ n + m.minus @ p),
        "ablation_code": (m.plus @ p, m.minus @ p),
        "ablation_text": (m.plus @ p, m.minus @ n),
    }[variant]
    return torch.where(D > 0, above, torch.where(D < 0, below, zero))


def scale_contributions(D: Pair, W: Tensor) -> Pair:
    """Batch norm and average pool: contributions scale; a negative scale swaps them."""
    p, n = positive(W), negative(W)
    return Pair(D.plus @ p.T + D.minus @ n.T, D.plus @ n.T + D.minus @ p.T)


def scale_multipliers(W: Tensor, m: Pair) -> Pair:
    """Batch norm and average pool: multipliers scale; a negative scale swaps them. No ablation."""
    p, n = positive(W), negative(W)
    return Pair(m.plus @ p + m.minus @ n, m.plus @ n + m.minus @ p)


def rescale(f: Callable[[Tensor], Tensor], slope: Tensor, reference: Tensor, z: Tensor) -> Tensor:
    """Factor s of both m+ and m-: Dy / Dx, or f'(reference), given as `slope`, where |Dx| < 1e-7."""
    D = z - reference
    near = D.abs() < NEAR_ZERO
    return torch.where(near, slope, (f(z) - f(reference)) / torch.where(near, 1.0, D))


def shift(c: Tensor) -> Tensor:
    """Contributions with |c| < 0.5e-7 move by +1e-7 (c >= 0) or -1e-7, so that they can be divided by."""
    return torch.where(c.abs() < 0.5 * NEAR_ZERO, torch.where(c >= 0, c + NEAR_ZERO, c - NEAR_ZERO), c)


def reveal_cancel(f: Callable[[Tensor], Tensor], r: Tensor, D: Pair) -> tuple[Pair, Pair]:
    """Contributions (y+, y-) of y = f and factors (y+/p, y-/n) of the multipliers; p, n: the shifted D+, D-.

    y+ = ((f(r+p) - f(r)) + (f(r+n+p) - f(r+n))) / 2;  y- = ((f(r+n) - f(r)) + (f(r+p+n) - f(r+p))) / 2.
    """
    p, n = shift(D.plus), shift(D.minus)
    y = Pair(
        0.5 * ((f(r + p) - f(r)) + (f(r + n + p) - f(r + n))),
        0.5 * ((f(r + n) - f(r)) + (f(r + p + n) - f(r + p))),
    )
    return y, Pair(y.plus / p, y.minus / n)


def crossed_max_pool(x: Tensor, reference: Tensor, pool: local.Pool, m: Pair) -> Tensor:
    """Multiplier of a max pool's input (N, C, H, W) by the crossed rule of captum and SHAP (peers.md 4.4).

    In every window, y = max x and y0 = max x0: (max(y, y0) - y0) m+ to the first maximum of x, (y - max(y, y0)) m-
    to the first maximum of x0; what arrives at an element is divided by its x - x0.
    """
    (y, winners), (y0, winners0) = local.max_pool(x, pool), local.max_pool(reference, pool)
    top = torch.maximum(y, y0)
    R = torch.zeros_like(x).flatten(2)
    R.scatter_add_(2, winners.flatten(2), ((top - y0) * m.plus).flatten(2))
    R.scatter_add_(2, winners0.flatten(2), ((y - top) * m.minus).flatten(2))
    D = (x - reference).flatten(2)
    return torch.where(D == 0, 0.0, R / torch.where(D == 0, 1.0, D)).reshape(x.shape)


class _Pass:
    """Values at the input and at the reference, contributions, and the backward step of every op."""

    def __init__(self, x: Tensor, reference: Tensor, rule: Rule, variant: Variant, maxima: Maxima) -> None:
        self.rule: Rule = rule
        self.variant: Variant = variant
        self.maxima: Maxima = maxima
        delta = x - reference
        self.D: dict[str, Pair] = {network.INPUT: Pair(positive(delta), negative(delta))}
        self.factors: dict[str, Pair] = {}

    def activation(self, step: network.Step, op: network.Activation, z: Tensor, r: Tensor) -> Pair:
        D = self.D[step.inputs[0]]
        rule = self.rule if isinstance(self.rule, str) else self.rule[step.name]
        if rule == "reveal_cancel":
            contributions, self.factors[step.name] = reveal_cancel(op.function, r, D)
            return contributions
        s = rescale(op.function, op.slope(r), r, z)
        self.factors[step.name] = Pair(s, s)
        return Pair(s * D.plus, s * D.minus)

    def contribute(self, step: network.Step, z: Sequence[Tensor], r: Sequence[Tensor], y: Tensor) -> Pair:
        op, pairs = step.op, [self.D[name] for name in step.inputs]
        deltas = [a - b for a, b in zip(z, r, strict=True)]
        if isinstance(op, network.Activation):
            return self.activation(step, op, z[0], r[0])
        if isinstance(op, network.MaxPool) and self.maxima == "crossed":
            delta = y - local.max_pool(r[0], op.pool)[0]
            return Pair(positive(delta), negative(delta))
        if isinstance(op, network.MaxPool):  # dummies: the next step has to be affine
            return Pair(torch.zeros_like(y), torch.zeros_like(y))
        if isinstance(op, network.Add):  # an affine map with weights 1
            return Pair(
                sum(map(positive, deltas), torch.zeros_like(y)),
                sum(map(negative, deltas), torch.zeros_like(y)),
            )
        if not isinstance(op, network.Affine):
            return Pair(op.run([p.plus for p in pairs], {}), op.run([p.minus for p in pairs], {}))
        W = network.matrix(op, tuple(z[0].shape[1:]))[0]
        if op.kind == "affine":
            flat = linear_contributions(deltas[0].flatten(1), W)
        else:
            flat = scale_contributions(Pair(pairs[0].plus.flatten(1), pairs[0].minus.flatten(1)), W)
        return Pair(flat.plus.reshape(y.shape), flat.minus.reshape(y.shape))

    def back(self, step: network.Step, z: Sequence[Tensor], r: Sequence[Tensor], m: Pair) -> list[Pair]:
        op = step.op
        if isinstance(op, network.Activation):
            s = self.factors[step.name]
            return [Pair(m.plus * s.plus, m.minus * s.minus)]
        if isinstance(op, network.MaxPool) and self.maxima == "crossed":
            return [_twice(crossed_max_pool(z[0], r[0], op.pool, m))]
        if isinstance(op, network.MaxPool):
            return [Pair(*(local.winner_takes_all(z[0], op.pool, part) for part in m))]
        if isinstance(op, network.Add):
            return [_twice(_by_sign(a - b, m)) for a, b in zip(z, r, strict=True)]
        if isinstance(op, network.Flatten):
            return [Pair(m.plus.reshape(z[0].shape), m.minus.reshape(z[0].shape))]
        if isinstance(op, network.Concat):
            widths = [value.shape[1] for value in z]
            return [Pair(p, n) for p, n in zip(m.plus.split(widths, 1), m.minus.split(widths, 1), strict=True)]
        W = network.matrix(op, tuple(z[0].shape[1:]))[0]
        flat = Pair(m.plus.flatten(1), m.minus.flatten(1))
        if op.kind == "affine":
            D = (z[0] - r[0]).flatten(1)
            return [_twice(linear_multiplier(D, W, flat, variant=self.variant).reshape(z[0].shape))]
        scaled = scale_multipliers(W, flat)
        return [Pair(scaled.plus.reshape(z[0].shape), scaled.minus.reshape(z[0].shape))]


def _by_sign(D: Tensor, m: Pair) -> Tensor:
    return torch.where(D > 0, m.plus, torch.where(D < 0, m.minus, (m.plus + m.minus) / 2.0))


def _twice(m: Tensor) -> Pair:
    return Pair(m, m)


def attribute(
    steps: Sequence[network.Step],
    x: Tensor,
    reference: Tensor,
    target: Tensor,
    *,
    rule: Rule,
    variant: Variant,
    maxima: Maxima = "gradient",
) -> Mapping[str, Tensor]:
    """Map m+ D+ + m- D- of every value, with m+ = m- = 1 on the target's logit.

    "full" sums to the logit's difference at every cut, if there is no max pool or `maxima` is "crossed"; else those
    are routed by the gradient at x, and their own map is 0, as their contributions are dummies. `variant` cuts
    only steps of kind "affine"; sums, having no weights, batch norm and average pools stay whole.
    """
    values, base = network.forward(steps, x), network.forward(steps, reference)
    run = _Pass(values[network.INPUT], base[network.INPUT], rule, variant, maxima)
    for step in steps:
        z, r = [values[i] for i in step.inputs], [base[i] for i in step.inputs]
        run.D[step.name] = run.contribute(step, z, r, values[step.name])
    m = {name: Pair(torch.zeros_like(value), torch.zeros_like(value)) for name, value in values.items()}
    rows = torch.arange(len(x))
    for part in m[steps[-1].name]:
        part[rows, target] = 1.0
    for step in reversed(steps):
        z, r = [values[i] for i in step.inputs], [base[i] for i in step.inputs]
        for name, part in zip(step.inputs, run.back(step, z, r, m[step.name]), strict=True):
            m[name] = Pair(m[name].plus + part.plus, m[name].minus + part.minus)
    return {name: m[name].plus * run.D[name].plus + m[name].minus * run.D[name].minus for name in values}
