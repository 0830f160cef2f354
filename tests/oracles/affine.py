"""Relevance rules of an affine map z = W x + b, in explicit matrices and float64, as the papers write them.

Every rule has the signature `rule(x, W, b, R, *, ...) -> R_in` with x (N, J), W (K, J), b (K,), R (N, K) and
R_in (N, J), and builds all contributions z_nkj = x_nj w_kj as one (N, K, J) array. No rule has a default:
bias convention and stabiliser are always named. `v+ = max(v, 0)`, `v- = min(v, 0)`; the stabilised
denominator is `<z> = z + eps * sign(z)`, sign(0) = +1. A denominator of exactly 0 (eps = 0) shares out 0.

Papers: Bach et al. 2015 (LRP, PLOS ONE 10(7)); Montavon et al. 2017 (DTD, arXiv 1512.02479); Montavon et al.
2019 (LRP overview); Andeol et al. 2021 (generalised gamma); Zhang et al. 2016 (Excitation BP); Kindermans et
al. 2018 (PatternNet); Lapuschkin et al. 2019 (flat); Sixt et al. 2020 ("P1").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Bound = float | Tensor
Eps = float | Callable[[Tensor], Tensor]


def matrix_of(function: Callable[[Tensor], Tensor], input_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Write an affine map of one sample as (W (K, J), b (K,)), flattened row-major.

    Column j is f(e_j) - f(0), where e_j is the j-th unit vector, and b = f(0). `function` takes and returns a
    batch; all unit vectors go through as one. Raises ValueError if W x + b is not f(x), tried at two single
    samples: f is not affine, or mixes its samples.
    """
    size = torch.Size(input_shape).numel()

    def run(samples: Tensor) -> Tensor:
        return function(samples.reshape(-1, *input_shape)).detach().flatten(1)

    b = run(torch.zeros(1, size, dtype=torch.float64))[0]
    if b.dtype != torch.float64:
        raise ValueError(f"the function computes in {b.dtype}, not in float64")
    W = (run(torch.eye(size, dtype=torch.float64)) - b).T.contiguous()
    probe = torch.randn(1, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size)) * 3.0
    for point in (probe, -probe):
        if not torch.allclose(run(point), point @ W.T + b, rtol=1e-9, atol=1e-9):
            raise ValueError("the function is not affine in every sample on its own")
    return W, b


def stabilise(z: Tensor, eps: Eps) -> Tensor:
    """Move z away from zero: z + eps * sign(z), sign(0) = +1; eps is a number, or one for every z."""
    level = eps if isinstance(eps, float | int) else eps(z)
    return torch.where(z >= 0, z + level, z - level)


def of_rms(factor: float) -> Eps:
    """A stabiliser in units of the denominators z (N, K): factor * sqrt(mean_k z_k^2)."""
    return lambda z: factor * (z**2).mean(1, keepdim=True).sqrt()


def divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide; 0 where the denominator is exactly 0 (the safe division of P1's library, without its 1e-7)."""
    zero = denominator == 0
    return torch.where(zero, 0.0, numerator / torch.where(zero, 1.0, denominator))


def positive(v: Tensor) -> Tensor:
    """v+ = max(v, 0)."""
    return torch.where(v > 0, v, 0.0)


def negative(v: Tensor) -> Tensor:
    """v- = min(v, 0)."""
    return torch.where(v < 0, v, 0.0)


def contributions(x: Tensor, W: Tensor) -> Tensor:
    """All z_nkj = x_nj w_kj, as (N, K, J)."""
    return x[:, None, :] * W[None, :, :]


def share(numerator: Tensor, denominator: Tensor, R: Tensor, eps: Eps) -> Tensor:
    """R_in_j = sum_k numerator_kj / <denominator_k> R_k; numerator (N|1, K, J), denominator (N|1, K)."""
    fraction = divide(numerator, stabilise(denominator, eps)[:, :, None])  # (N, K, J)
    return (fraction * R[:, :, None]).sum(1)


def _bias(b: Tensor, convention: str, **conventions: Tensor) -> Tensor:
    known = {"none": torch.zeros_like(b), **conventions}
    if convention not in known:
        raise ValueError(f"bias convention {convention!r} is not one of {sorted(known)}")
    return known[convention]


def gradient(x: Tensor, W: Tensor, b: Tensor, R: Tensor) -> Tensor:
    """R_in = W^T R (P1 M1): what arrives and leaves is a gradient, not a relevance."""
    return (W[None] * R[:, :, None]).sum(1)


def lrp_0(x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, bias: Literal["none", "full"]) -> Tensor:
    """R_in_j = sum_k x_j w_kj / z_k R_k (Bach 2015 eq. 56; P1 M7). Conserves without bias."""
    return epsilon(x, W, b, R, eps=0.0, bias=bias)


def epsilon(x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, eps: Eps, bias: Literal["none", "full"]) -> Tensor:
    """R_in_j = sum_k x_j w_kj / <z_k> R_k (Bach 2015 eq. 58), z_k = sum_j x_j w_kj + b_k, or without b_k."""
    z = contributions(x, W)
    return share(z, z.sum(2) + _bias(b, bias, full=b), R, eps)


def z_plus(
    x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, bias: Literal["none", "positive", "full"], eps: Eps
) -> Tensor:
    """R_in_j = sum_k [z_kj]+ / <sum_j [z_kj]+ + bias> R_k (Montavon 2017, z+ rule; P1 eq. 5), x of any sign.

    `none` is the papers' rule and conserves (where z+_k > 0); `positive` adds b+ (zennit), `full` adds b
    (iNNvestigate, captum). [z_kj]+ = x+ w+ + x- w-.
    """
    p = positive(contributions(x, W))
    return share(p, p.sum(2) + _bias(b, bias, positive=positive(b), full=b), R, eps)


def alpha_beta(
    x: Tensor,
    W: Tensor,
    b: Tensor,
    R: Tensor,
    *,
    alpha: float,
    beta: float,
    bias: Literal["none", "split", "full"],
    eps: Eps,
) -> Tensor:
    """R_in_j = sum_k (alpha [z_kj]+ / <z+_k> - beta [z_kj]- / <z-_k>) R_k (Bach 2015 eq. 60).

    z+-_k = sum_j [z_kj]+- plus: nothing ("none"), b+ and b- ("split": Bach, zennit), b and b ("full":
    iNNvestigate).
    """
    z = contributions(x, W)
    p, n = positive(z), negative(z)
    b_p, b_n = _bias(b, bias, split=positive(b), full=b), _bias(b, bias, split=negative(b), full=b)
    return alpha * share(p, p.sum(2) + b_p, R, eps) - beta * share(n, n.sum(2) + b_n, R, eps)


def gamma(
    x: Tensor,
    W: Tensor,
    b: Tensor,
    R: Tensor,
    *,
    g: float,
    bias: Literal["none", "plain", "scaled"],
    eps: Eps,
) -> Tensor:
    """R_in_j = sum_k x_j (w + g w+)_kj / <sum_j x_j (w + g w+)_kj + bias> R_k (Montavon 2019, for x >= 0).

    Bias: `scaled` is b + g b+ (the bias is the weight of a neuron that is always 1), `plain` is b (captum).
    """
    z = contributions(x, W + g * positive(W))
    return share(z, z.sum(2) + _bias(b, bias, plain=b, scaled=b + g * positive(b)), R, eps)


def gamma_generalised(
    x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, g: float, bias: Literal["none", "plain", "scaled"], eps: Eps
) -> Tensor:
    """Gamma for inputs and outputs of any sign (Andeol 2021, zennit): favour what agrees with sign(z_k).

    z_k > 0: x+ (w + g w+) + x- (w + g w-) over their sum + b + g b+; z_k < 0: x+ (w + g w-) + x- (w + g w+)
    over their sum + b + g b-; z_k = 0: nothing. In contributions: z_kj + g [z_kj]+, or z_kj + g [z_kj]-.
    The sign is always that of the true output, bias included, under `none` too (as zennit has it); `plain` is + b.
    """
    z = contributions(x, W)
    z_true = (z.sum(2) + b)[:, :, None]  # (N, K, 1)
    up, down = z + g * positive(z), z + g * negative(z)
    b_up, b_down = (_bias(b, bias, plain=b, scaled=b + g * part(b)) for part in (positive, negative))
    above = share(torch.where(z_true > 0, up, 0.0), up.sum(2) + b_up, R, eps)
    return above + share(torch.where(z_true < 0, down, 0.0), down.sum(2) + b_down, R, eps)


def w_squared(x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, bias: Literal["none", "squared"], eps: Eps) -> Tensor:
    """R_in_j = sum_k w_kj^2 / <sum_j w_kj^2> R_k (Montavon 2017 eq. 12); `squared` adds b_k^2 (zennit)."""
    squares = (W * W)[None]
    return share(squares, squares.sum(2) + _bias(b, bias, squared=b * b), R, eps)


def flat(x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, support: Tensor | None, eps: Eps) -> Tensor:
    """R_in_j = sum_k s_kj / <sum_j s_kj> R_k (Lapuschkin 2019): every w is 1; the bias never counts.

    `support` (K, J) is 1 where input j is wired to output k; None reads it off W != 0, which is right unless
    a weight is exactly 0. Padding is wired to nothing, so border outputs divide by fewer inputs.
    """
    wired = (W != 0).to(W.dtype) if support is None else support
    return share(wired[None], wired.sum(1)[None], R, eps)


def z_box(x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, low: Bound, high: Bound, eps: Eps) -> Tensor:
    """R_in_j = sum_k (x_j w_kj - l_j w+_kj - h_j w-_kj) / <sum_j same> R_k (Montavon 2017, zB rule).

    l <= x <= h; `low` and `high` are numbers, (J,) or (N, J). The bias drops out: b - b+ - b- = 0.
    """
    lo, hi = torch.zeros_like(x) + low, torch.zeros_like(x) + high  # (N, J)
    z = contributions(x, W) - contributions(lo, positive(W)) - contributions(hi, negative(W))
    return share(z, z.sum(2), R, eps)


def excitation_backprop(x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, eps: Eps) -> Tensor:
    """R_in_j = sum_k x_j w+_kj / <sum_j x_j w+_kj> R_k (Zhang 2016); x >= 0 assumed, not enforced; no bias.

    For x >= 0 this is z+. For signed x it is iNNvestigate's ZPlusFast and the first-layer z+ of P2.
    """
    z = contributions(x, positive(W))
    return share(z, z.sum(2), R, eps)


def pattern_net(x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, A: Tensor) -> Tensor:
    """R_in_j = sum_k a_kj R_k (Kindermans 2018, PatternNet; P1 M13): patterns A (K, J) replace W."""
    return (A[None] * R[:, :, None]).sum(1)


def pattern_attribution(x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, A: Tensor) -> Tensor:
    """R_in_j = sum_k w_kj a_kj R_k (Kindermans 2018, PatternAttribution; P1 M14): the root direction is A."""
    return ((W * A)[None] * R[:, :, None]).sum(1)


def root_direction(x: Tensor, W: Tensor, b: Tensor, R: Tensor, *, v: Tensor, eps: Eps) -> Tensor:
    """R_in_j = sum_k v_kj w_kj / <w_k^T v_k> R_k, the general DTD form (Montavon 2017).

    The root of neuron k is x - t v_k, with a direction per neuron: v (N|1, K, J). v = x gives LRP-0 without
    bias, v_k = w_k the w^2-rule, v_k = x 1[w_k > 0] z+, v_k = x - l 1[w_k > 0] - h 1[w_k < 0] zB.
    """
    z = v * W[None]
    return share(z, z.sum(2), R, eps)
