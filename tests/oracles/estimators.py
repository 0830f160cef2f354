"""PatternNet's pattern estimators on explicit patches, in float64 (Kindermans et al. 2018; papers.md A2).

A pattern a_k says in which direction of a neuron's input the signal lies. Inputs are rows: patches (M, J) of
all positions of all samples, weights (K, J), and y = patches W^T *without* bias.
"""

from __future__ import annotations

import torch
from torch import Tensor


def patches(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Every patch a convolution sees, padded with 0: (N, C, H, W) -> (N * rows * columns, C * kh * kw)."""
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    n, channels, height, width = x.shape
    padded = torch.zeros(n, channels, height + 2 * ph, width + 2 * pw, dtype=torch.float64)
    padded[:, :, ph : ph + height, pw : pw + width] = x
    rows, columns = (height + 2 * ph - kh) // sh + 1, (width + 2 * pw - kw) // sw + 1
    places = [(r * sh, c * sw) for r in range(rows) for c in range(columns)]
    return torch.stack([s[:, i : i + kh, j : j + kw].reshape(-1) for s in padded for i, j in places])


def rows_of(feature_map: Tensor) -> Tensor:
    """A feature map in the order of `patches`: (N, K, rows, columns) -> (N * rows * columns, K)."""
    return feature_map.permute(0, 2, 3, 1).reshape(-1, feature_map.shape[1])


def linear_pattern(inputs: Tensor, weight: Tensor) -> Tensor:
    """a_k = cov[x, y_k] / (w_k . cov[x, y_k]), moments over all rows: the linear estimator; (K, J).

    As w_k . cov[x, y_k] = var[y_k], this is cov[x, y_k] / var[y_k], and cov[x] w / (w' cov[x] w) (P1 eq. 9).
    """
    return relu_pattern(inputs, weight, torch.ones(len(inputs), len(weight), dtype=torch.bool))


def relu_pattern(inputs: Tensor, weight: Tensor, active: Tensor) -> Tensor:
    """a_k = c_k / (w_k . c_k), c_k = E[x y_k | active_k] - E[x | active_k] E[y_k]: two components; (K, J).

    `active` (M, K) says where neuron k's activation *after* the ReLU (bias and batch norm included) is
    positive. E[y_k] runs over all rows, the other two over the active ones; without any active row both are
    0. A denominator of exactly 0 becomes 1.
    """
    patterns = torch.zeros_like(weight)
    for k, w in enumerate(weight):
        y = inputs @ w  # (M,)
        chosen = active[:, k]
        count = max(int(chosen.sum()), 1)
        mean_x = inputs[chosen].sum(0) / count
        mean_xy = (inputs[chosen] * y[chosen, None]).sum(0) / count
        covariance = mean_xy - mean_x * y.mean()
        norm = float(w @ covariance)
        patterns[k] = covariance / (norm if norm != 0.0 else 1.0)
    return patterns
