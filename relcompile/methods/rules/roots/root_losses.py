"""Losses between what a layer answers, y, and the relevance that arrives at it, R: value and gradient in closed form.

Every loss is the mean over the elements of one sample, never over the batch: a sample's root does not depend on the
samples beside it. Values are (N, 1), gradients are like y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, prod
from typing import Protocol, final

import torch

from passes.graphs.emitter import Value, aten


class Loss(Protocol):
    """A frozen object that holds parameters only."""

    def value(self, y: Value, R: Value, /) -> Value:
        """The loss of every sample, (N, 1)."""
        ...

    def gradient(self, y: Value, R: Value, /) -> Value:
        """Its derivative with respect to y."""
        ...


@final
@dataclass(frozen=True)
class HingeEmbedding:
    """PyTorch's hinge embedding loss, called with targets other than 1 and -1.

    Equation: mean(max(0, 1 - y) + y), so its gradient is [y > 1] / n; R does not enter it. (At y = 1 autograd gave 0
        in 2024, since the gradient of a clamp at its bound was 1; newer versions of PyTorch give 1 / n there.)
    Source: Zhang et al. 2024, released code (dense layers and activations).
    """

    def value(self, y: Value, _R: Value, /) -> Value:
        return per_sample_mean((-y + 1.0).positive + y)

    def gradient(self, y: Value, _R: Value, /) -> Value:
        above = y.emit.call(aten.sign.default, (y - 1.0).positive)
        return above * (1 / elements(y))


@final
@dataclass(frozen=True)
class SquaredError:
    """Equation: mean((y - R)²)."""

    def value(self, y: Value, R: Value, /) -> Value:
        difference = y - R
        return per_sample_mean(difference * difference)

    def gradient(self, y: Value, R: Value, /) -> Value:
        return (y - R) * (2 / elements(y))


@final
@dataclass(frozen=True)
class StructuralSimilarity:
    """SSIM of two stacks of maps, channel by channel, under a Gaussian window with zero padding.

    Equation: mean(A1 A2 / (B1 B2)), A1 = 2 μ_y μ_R + c1, A2 = 2 σ_yR + c2, B1 = μ_y² + μ_R² + c1,
        B2 = σ_y² + σ_R² + c2, where μ_v = G v, σ_uv = G(u v) - μ_u μ_v and G is the window. G is its own adjoint.
        Similarity, not distance: it is 1 where y = R.

    Args:
        size, sigma: of the window, in pixels; size is odd.
        c1, c2: > 0.
        largest: elements of R beyond it count as this: their squares would not be numbers in float32.
    Shapes: y and R (N, C, ...) with at least one axis after the channels.
    Source: Wang et al. 2004; Zhang et al. 2024, released code (convolutions, which descend it).
    """

    size: int = 11
    sigma: float = 1.5
    c1: float = 0.01**2
    c2: float = 0.03**2
    largest: float = 1e18

    def value(self, y: Value, R: Value, /) -> Value:
        target = self._finite(R)
        luminance, contrast, _, _ = self._terms(y, target, self._blur(y), self._blur(target))
        return per_sample_mean(luminance * contrast)

    def gradient(self, y: Value, R: Value, /) -> Value:
        target = self._finite(R)
        mean_y, mean_R = self._blur(y), self._blur(target)
        luminance, contrast, b1, b2 = self._terms(y, target, mean_y, mean_R)
        by_covariance = luminance * 2.0 / b2
        by_variance = -(luminance * contrast / b2)
        by_mean = (mean_R - mean_y * luminance) * 2.0 * contrast / b1
        by_mean = by_mean - mean_R * by_covariance - mean_y * 2.0 * by_variance
        total = self._blur(by_mean) + y * 2.0 * self._blur(by_variance) + target * self._blur(by_covariance)
        return total * (1 / elements(y))

    def _finite(self, R: Value) -> Value:
        return R.emit.call(aten.clamp.default, R, -self.largest, self.largest)

    def _terms(self, y: Value, R: Value, mean_y: Value, mean_R: Value) -> tuple[Value, Value, Value, Value]:
        """A1 / B1, A2 / B2, B1 and B2."""
        product, square_y, square_R = mean_y * mean_R, mean_y * mean_y, mean_R * mean_R
        covariance = self._blur(y * R) - product
        variances = (self._blur(y * y) - square_y) + (self._blur(R * R) - square_R)
        b1, b2 = square_y + square_R + self.c1, variances + self.c2
        return (product * 2.0 + self.c1) / b1, (covariance * 2.0 + self.c2) / b2, b1, b2

    def _blur(self, maps: Value) -> Value:
        """The Gaussian window is a product of windows along the axes."""
        for axis in range(2, maps.ndim):
            maps = self._blur_along(maps, axis)
        return maps

    def _blur_along(self, maps: Value, axis: int) -> Value:
        spatial, channels = maps.ndim - 2, maps.shape[1]
        kernel = [self.size if d == axis - 2 else 1 for d in range(spatial)]
        padding = [k // 2 for k in kernel]
        name = f"window_{axis - 2}_of_{spatial}"
        window = maps.emit.constant(name, self._window(maps.fake.dtype).reshape([1, 1, *kernel]))
        weight = maps.emit.call(aten.expand.default, window, [channels, 1, *kernel])
        ones, zeros = [1] * spatial, [0] * spatial
        return maps.emit.call(aten.convolution.default, maps, weight, None, ones, padding, ones, False, zeros, channels)

    def _window(self, dtype: torch.dtype) -> torch.Tensor:
        centre = self.size // 2
        weights = [exp(-((k - centre) ** 2) / (2 * self.sigma**2)) for k in range(self.size)]
        window = torch.tensor(weights, dtype=torch.float64)
        return (window / window.sum()).to(dtype)


def per_sample_mean(value: Value) -> Value:
    """The mean over everything but the batch, (N, 1)."""
    return value.sum_per_sample() * (1 / elements(value))


def elements(value: Value) -> int:
    """Number of elements of one sample."""
    sizes: Sequence[int] = value.shape[1:]
    return prod(sizes)
