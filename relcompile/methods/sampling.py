"""Attributions averaged over copies of the input: noisy ones, or points on the way from a baseline.

Notation: x (N, ...), its n copies (N, n, ...), g the attribution that is averaged (a gradient, or any other).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, final

import torch

from passes.graphs.emitter import Value, aten
from relcompile.errors import CompositeError
from relcompile.methods.rules.parameters import Bound, per_channel, require_positive

_MOST_COPIES = 10**6


class Sampling(Protocol):
    """Which copies of the input are explained, and what becomes of the mean of their attributions."""

    noisy: ClassVar[bool]
    """The explainer has an input `noise`, standard normal, of the copies' shape."""
    at_input_only: ClassVar[bool]
    """`finish` needs a mean of the input's shape."""

    @property
    def count(self) -> int:
        """Number of copies n."""
        ...

    def copies(self, x: Value, noise: Value | None, /) -> Value:
        """The copies (N, n, ...) of x (N, ...)."""
        ...

    def finish(self, x: Value, mean: Value, /) -> Value:
        """The result, from x and the mean over the copies (N, ...)."""
        ...


@final
@dataclass(frozen=True)
class GaussianNoise:
    """SmoothGrad: the mean over noisy copies.

    Equation: R(x) = 1/n Σ_i g(x + σ ξ_i), ξ_i ~ N(0, 1), σ = level (max x - min x), range of each sample on its own

    Args:
        count: n >= 1.
        level: > 0.
    Conserves: no.
    Source: Smilkov et al. 2017.
    """

    count: int = 25
    level: float = 0.15
    noisy: ClassVar[bool] = True
    at_input_only: ClassVar[bool] = False

    def __post_init__(self) -> None:
        as_count(self.count)
        require_positive("level", self.level)

    def copies(self, x: Value, noise: Value | None, /) -> Value:
        if noise is None:
            raise ValueError("noisy copies need noise")
        axes = list(range(1, x.ndim))
        extent = x.emit.call(aten.amax.default, x, axes, True) - x.emit.call(aten.amin.default, x, axes, True)
        return _copied(x) + noise * _copied(extent * self.level)

    def finish(self, _x: Value, mean: Value, /) -> Value:
        return mean


@final
@dataclass(frozen=True)
class StraightPath:
    """Integrated Gradients: the mean over points on the straight way from a baseline to the input.

    Equation: R(x) = (x - x₀) ⊙ 1/n Σ_i g(x₀ + (i - ½)/n (x - x₀)), i = 1 .. n (the midpoint rule)

    Args:
        count: steps n >= 1.
        baseline: x₀, one number or one per channel.
    Conserves: Σ R -> f(x) - f(x₀) as n grows.
    Source: Sundararajan et al. 2017, equation 3.
    """

    count: int = 32
    baseline: Bound = 0.0
    noisy: ClassVar[bool] = False
    at_input_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        as_count(self.count)

    def copies(self, x: Value, _noise: Value | None, /) -> Value:
        middles = (torch.arange(self.count, dtype=torch.float64) + 0.5) / self.count
        shape = [1, self.count, *[1] * (x.ndim - 1)]
        parts = x.emit.constant("path", middles.to(x.fake.dtype).reshape(shape))
        way = _copied(self._difference(x)) * parts
        return way if self.baseline == 0 else way + _copied(self._baseline(x))

    def finish(self, x: Value, mean: Value, /) -> Value:
        return self._difference(x) * mean

    def _difference(self, x: Value) -> Value:
        return x if self.baseline == 0 else x - self._baseline(x)

    def _baseline(self, x: Value) -> Value:
        return per_channel(x, "baseline", self.baseline)


def as_count(count: float) -> int:
    """A number of copies as it was given.

    Raises:
        CompositeError: it is not a whole number above 0, or more than any batch holds.
    """
    if count != int(count) or not 1 <= count <= _MOST_COPIES:
        raise CompositeError(f"count={count:g} must be a whole number above 0, and {_MOST_COPIES:,} at most")
    return int(count)


def _copied(value: Value) -> Value:
    """(N, ...) -> (N, 1, ...): repeated wherever it meets the copies."""
    return value.emit.call(aten.unsqueeze.default, value, 1)
