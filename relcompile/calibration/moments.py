"""The estimator of patterns: running sums over the data, and the pattern of every neuron at the end.

A neuron k reads the input x at every position of every sample, y_k = w_k · x (without its bias); m_k says where its
activation is positive. Padding positions count as zeros. Nothing of the size of a patch is ever built: the sum of
s_k x over all positions is the weight gradient of the layer for the output gradient s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from passes.graphs.emitter import aten
from passes.operators.affine import Geometry

ROUNDING: Final = 1e-12  # a covariance this small beside the moments it is the difference of is rounding alone
SUMS: Final = ("rows", "active", "y", "x", "xy")


@dataclass(frozen=True)
class Reading:
    """How an affine layer reads its input.

    Args:
        convolution: its stride, padding, groups, ...; None for a linear layer.
    """

    convolution: Geometry | None = None

    def weight_gradient(self, x: torch.Tensor, s: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Σ s_k x over all positions, in the layout of the weight `like`."""
        if self.convolution is None:
            return s.flatten(0, -2).T @ x.flatten(0, -2)
        only_weight = [False, True, False]
        return aten.convolution_backward.default(s, x, like, None, *self.convolution, only_weight)[1]

    def channels_last(self, y: torch.Tensor) -> torch.Tensor:
        """The neurons on the last axis."""
        return y if self.convolution is None else y.movedim(1, -1)

    def neurons_first(self, weight: torch.Tensor) -> torch.Tensor:
        """From the operator's own layout to (K, inputs)."""
        if not self._is_transposed:
            return weight.flatten(1)
        grouped = weight.unflatten(0, (self._groups, -1)).transpose(1, 2)  # (G, K/G, C/G, ...)
        return grouped.flatten(0, 1).flatten(1)

    def as_weight(self, rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The inverse of `neurons_first`."""
        if not self._is_transposed:
            return rows.reshape(like.shape)
        inputs = like.shape[0] // self._groups
        grouped = rows.reshape(self._groups, -1, inputs, *like.shape[2:])
        return grouped.transpose(1, 2).reshape(like.shape)

    @property
    def _is_transposed(self) -> bool:
        return self.convolution is not None and self.convolution.transposed

    @property
    def _groups(self) -> int:
        return 1 if self.convolution is None else self.convolution.groups


class Moments:
    """Sums over all samples and positions of one layer, in float64.

    Attributes:
        geometry: how the layer reads its input.
        weight: W, in the operator's own layout.
        sums: rows ( ), the number of positions; active (K,), at how many of them m_k; y (K,), Σ y_k; and in W's
            layout x, Σ m_k x, and xy, Σ m_k y_k x.
    """

    def __init__(self, geometry: Reading, weight: torch.Tensor) -> None:
        self.geometry = geometry
        self.weight = weight.detach()
        neurons = len(geometry.neurons_first(self.weight))
        shapes: dict[str, Any] = {
            "rows": [],
            "active": [neurons],
            "y": [neurons],
            "x": weight.shape,
            "xy": weight.shape,
        }
        self.sums = {name: torch.zeros(shapes[name], dtype=torch.float64) for name in SUMS}

    def add(self, x: torch.Tensor, y: torch.Tensor, active: torch.Tensor) -> None:
        """One batch: x (N, J...), y (N, K...) without the bias, active like y."""
        x, y, m = x.double(), y.double(), active.double()
        rows = self.geometry.channels_last(y).flatten(0, -2)
        self.sums["rows"] += len(rows)
        self.sums["active"] += self.geometry.channels_last(m).flatten(0, -2).sum(0)
        self.sums["y"] += rows.sum(0)
        self.sums["x"] += self.geometry.weight_gradient(x, m, self.sums["x"])
        self.sums["xy"] += self.geometry.weight_gradient(x, m * y, self.sums["x"])

    def restore(self, sums: Mapping[str, torch.Tensor]) -> None:
        """Go on from the sums of an earlier run.

        Raises:
            ValueError: they are not sums over this layer.
        """
        for name, own in self.sums.items():
            found = sums.get(name)
            if found is None or found.shape != own.shape or found.dtype != own.dtype or not found.isfinite().all():
                raise ValueError(f"{name} should be {tuple(own.shape)} finite numbers in float64")
        if not ((sums["active"] >= 0) & (sums["active"] <= sums["rows"])).all():
            raise ValueError("a neuron was active at less than 0 or more than all positions")
        self.sums = {name: sums[name].clone() for name in SUMS}

    def pattern(self) -> torch.Tensor:
        """a_k = c_k / (w_k · c_k), in W's layout and dtype, 0 where w_k · c_k is.

        Equation: c_k = E[x y_k | m_k] - E[x | m_k] E[y_k], the last mean over all positions. With m_k = 1 everywhere
            this is cov[x, y_k] / var[y_k].
        Source: Kindermans et al. 2018, equations 9 and 12.
        """
        count = self.sums["active"].clamp(min=1.0)[:, None]
        mean_y = (self.sums["y"] / self.sums["rows"].clamp(min=1.0))[:, None]
        x, xy = (self.geometry.neurons_first(self.sums[name]) / count for name in ("x", "xy"))
        W = self.geometry.neurons_first(self.weight.double())
        covariance = xy - x * mean_y
        norm = (W * covariance).sum(1, keepdim=True)
        magnitude = (W * xy).abs().sum(1, keepdim=True) + (W * x * mean_y).abs().sum(1, keepdim=True)
        vanishes = norm.abs() <= ROUNDING * magnitude
        pattern = torch.where(vanishes, 0.0, covariance / torch.where(vanishes, 1.0, norm))
        return self.geometry.as_weight(pattern, self.weight).to(self.weight.dtype).contiguous()
