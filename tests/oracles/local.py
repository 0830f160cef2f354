"""Relevance rules of everything without weights: activations, sums and max pools, naively and in float64.

Three signatures. Activation rule: `rule(z, y, slope, R) -> R_in`, y = f(z), slope = f'(z). Sum rule:
`rule(summands, R) -> one R per summand`. Pool rule: `rule(x, pool, R) -> R_in`, x (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tests.oracles.affine import divide, negative, positive, stabilise


def pass_through(z: Tensor, y: Tensor, slope: Tensor, R: Tensor) -> Tensor:
    """R_in = R: an activation neither adds nor takes relevance (Bach 2015; P1 M7)."""
    return R


def by_gradient(z: Tensor, y: Tensor, slope: Tensor, R: Tensor) -> Tensor:
    """R_in = f'(z) R (P1 M1, and the fused ReLUs of M13 and M14)."""
    return slope * R


def guided(z: Tensor, y: Tensor, slope: Tensor, R: Tensor) -> Tensor:
    """R_in = f'(z) R+ (Springenberg 2015, guided backprop; P1 M3)."""
    return slope * positive(R)


def deconvolution(z: Tensor, y: Tensor, slope: Tensor, R: Tensor) -> Tensor:
    """R_in = R+: the forward mask is ignored (Zeiler 2014, DeconvNet; P1 M4)."""
    return positive(R)


def rectified(z: Tensor, y: Tensor, slope: Tensor, R: Tensor, *, q: float) -> Tensor:
    """R_in = f'(z) R [y R > tau], tau the q-th percentile of y R over a sample's units (RectGrad; P1 M5).

    Percentile as TensorFlow's default "nearest": of d values sorted downwards, number
    round((d - 1)(1 - q/100)), half to even (papers.md D15).
    """
    products = (y * R).reshape(len(R), -1)
    R_in = torch.zeros_like(R)
    for n, row in enumerate(products):
        tau = sorted(row.tolist(), reverse=True)[round((row.numel() - 1) * (1.0 - q / 100.0))]
        R_in[n] = slope[n] * R[n] * (y[n] * R[n] > tau)
    return R_in


def copied(summands: Sequence[Tensor], R: Tensor) -> list[Tensor]:
    """All of R to every summand: the gradient of a sum."""
    return [R for _ in summands]


def uniform(summands: Sequence[Tensor], R: Tensor) -> list[Tensor]:
    """R / n to each of n summands."""
    return [R / len(summands) for _ in summands]


def proportional(summands: Sequence[Tensor], R: Tensor, *, eps: float) -> list[Tensor]:
    """a R / <a + b>: the LRP-0 or epsilon rule of a sum (P1 M7; peers.md 4.5)."""
    total = stabilise(sum(summands, torch.zeros_like(R)), eps)
    return [divide(a, total) * R for a in summands]


def absolute(summands: Sequence[Tensor], R: Tensor, *, eps: float) -> list[Tensor]:
    """|a| R / <|a| + |b|> (papers.md D27)."""
    return proportional_parts([a.abs() for a in summands], R, eps)


def alpha_beta(summands: Sequence[Tensor], R: Tensor, *, alpha: float, beta: float, eps: float) -> list[Tensor]:
    """alpha a+ R / <a+ + b+> - beta a- R / <a- + b-> (P1 M8 to M12); alpha 1, beta 0 is the positive part."""
    plus = proportional_parts([positive(a) for a in summands], R, eps)
    minus = proportional_parts([negative(a) for a in summands], R, eps)
    return [alpha * p - beta * n for p, n in zip(plus, minus, strict=True)]


def proportional_parts(parts: Sequence[Tensor], R: Tensor, eps: float) -> list[Tensor]:
    """R shared out in proportion to `parts`."""
    return proportional(parts, R, eps=eps)


class Pool(NamedTuple):
    """A 2-D pooling window; padding is outside every window."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)


def windows(x: Tensor, pool: Pool) -> list[list[list[int]]]:
    """For each output row and column, the flat positions (row * W + column) inside its window, row-major."""
    height, width = x.shape[2:]
    (kh, kw), (sh, sw), (ph, pw) = pool
    rows = (height + 2 * ph - kh) // sh + 1
    columns = (width + 2 * pw - kw) // sw + 1

    def window(top: int, left: int) -> list[int]:
        places = [(i, j) for i in range(top, top + kh) for j in range(left, left + kw)]
        return [i * width + j for i, j in places if 0 <= i < height and 0 <= j < width]

    return [[window(r * sh - ph, c * sw - pw) for c in range(columns)] for r in range(rows)]


def max_pool(x: Tensor, pool: Pool) -> tuple[Tensor, Tensor]:
    """Largest value of every window, and its flat position: (N, C, rows, columns) both. Ties: the first."""
    pixels = x.flatten(2)
    values, winners = [], []
    for window in (w for row in windows(x, pool) for w in row):
        best = pixels[:, :, window[0]]
        winner = torch.full_like(best, window[0], dtype=torch.int64)
        for place in window[1:]:
            larger = pixels[:, :, place] > best
            best = torch.where(larger, pixels[:, :, place], best)
            winner = torch.where(larger, place, winner)
        values.append(best)
        winners.append(winner)
    shape = (*x.shape[:2], len(windows(x, pool)), -1)
    return torch.stack(values, 2).reshape(shape), torch.stack(winners, 2).reshape(shape)


def winner_takes_all(x: Tensor, pool: Pool, R: Tensor) -> Tensor:
    """All of a window's R to its largest input, the first on ties; overlapping windows add (P1 A2)."""
    winners = max_pool(x, pool)[1].flatten(2)
    R_in = torch.zeros_like(x).flatten(2)
    for k, part in enumerate(R.flatten(2).unbind(2)):
        R_in.scatter_add_(2, winners[:, :, k : k + 1], part[:, :, None])
    return R_in.reshape(x.shape)


def proportional_pool(x: Tensor, pool: Pool, R: Tensor, *, eps: float) -> Tensor:
    """A window's R shared out in proportion to its inputs, as if it were a sum pool: x_j R / <sum_j x_j>."""
    pixels = x.flatten(2)
    R_in = torch.zeros_like(pixels)
    flat_windows = [w for row in windows(x, pool) for w in row]
    for window, part in zip(flat_windows, R.flatten(2).unbind(2), strict=True):
        total = stabilise(pixels[:, :, window].sum(2), eps)
        for place in window:
            R_in[:, :, place] += divide(pixels[:, :, place], total) * part
    return R_in.reshape(x.shape)
