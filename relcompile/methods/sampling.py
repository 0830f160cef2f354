"""Attributions averaged over copies of the input: noisy ones, or points on the way from a baseline.

Notation: x (N, ...), its n copies (N, n, ...), g the attribution that is averaged (a gradient, or any other).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, final

import torch

from passes.graphs.emitter import Value, aten
from relcompile.errors import CompositeError
from relcompile.methods.rules.parameters import Bound, require_positive

_MOST_COPIES = 10**6


class Sampling(Protocol):
    """Which copies of the input are explained, and what becomes of the mean of their attributions."""

    noisy: ClassVar[bool]
    """The explainer has an input `noise`, standard normal, of the copies' shape, which `copies` reads."""
    at_input_only: ClassVar[bool]
    """`finish` needs a mean of the input's shape."""

    @property
    def count(self) -> int:
        """Number of copies n."""
        ...

    @property
    def start(self) -> Bound | None:
        """The baseline x₀ that the copies start from, unless the user gives another; None: there is none."""
        ...

    def copies(self, x: Value, beside: Value | None, /) -> Value:
        """The copies (N, n, ...) of x (N, ...), from noise (N, n, ...) or the baseline, one sample or N."""
        ...

    def finish(self, x: Value, baseline: Value | None, mean: Value, /) -> Value:
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
    start: ClassVar[None] = None

    def __post_init__(self) -> None:
        as_count(self.count)
        require_positive("level", self.level)

    def copies(self, x: Value, noise: Value | None, /) -> Value:
        if noise is None:
            raise ValueError("noisy copies need noise")
        axes = list(range(1, x.ndim))
        extent = x.emit.call(aten.amax.default, x, axes, True) - x.emit.call(aten.amin.default, x, axes, True)
        return _copied(x) + noise * _copied(extent * self.level)

    def finish(self, _x: Value, _baseline: Value | None, mean: Value, /) -> Value:
        return mean


@final
@dataclass(frozen=True)
class StraightPath:
    """Integrated Gradients: the mean over points on the straight way from a baseline to the input.

    Equation: R(x) = (x - x₀) ⊙ 1/n Σ_i g(x₀ + (i - ½)/n (x - x₀)), i = 1 .. n (the midpoint rule)

    Args:
        count: steps n >= 1.
        baseline: x₀, one number or one per channel; `reference` (of `Options`) takes its place, if it is given.
    Conserves: Σ R -> f(x) - f(x₀) as n grows.
    Source: Sundararajan et al. 2017, equation 3.
    """

    count: int = 32
    baseline: Bound = 0.0
    noisy: ClassVar[bool] = False
    at_input_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        as_count(self.count)
        given: Any = self.baseline
        if isinstance(given, torch.Tensor):
            raise CompositeError("a baseline that is a tensor is given to `compile`, as reference=tensor")

    @property
    def start(self) -> Bound:
        return self.baseline

    def copies(self, x: Value, baseline: Value | None, /) -> Value:
        middles = (torch.arange(self.count, dtype=torch.float64) + 0.5) / self.count
        shape = [1, self.count, *[1] * (x.ndim - 1)]
        parts = x.emit.constant("path", middles.to(x.fake.dtype).reshape(shape))
        way = _copied(self._way(x, baseline)) * parts
        return way if baseline is None else way + _copied(baseline)

    def finish(self, x: Value, baseline: Value | None, mean: Value, /) -> Value:
        return self._way(x, baseline) * mean

    @staticmethod
    def _way(x: Value, baseline: Value | None) -> Value:
        return x if baseline is None else x - baseline


@final
@dataclass(frozen=True)
class Background:
    """The mean over several references of a method of differences: every copy is the input, with one of them beside it.

    Equation: R(x) = 1/n Σ_i R(x; x₀ᵢ); for DeepLIFT that is DeepLIFT SHAP.

    Args:
        count: references n >= 1.
    Conserves: Σ R = f(x) - 1/n Σ_i f(x₀ᵢ).
    Source: Lundberg and Lee 2017, section 4.2.
    """

    count: int
    noisy: ClassVar[bool] = False
    at_input_only: ClassVar[bool] = False
    start: ClassVar[None] = None

    def copies(self, x: Value, _beside: Value | None, /) -> Value:
        sizes = [-1, self.count, *[-1] * (x.ndim - 1)]
        return x.emit.call(aten.expand.default, _copied(x), sizes)

    def finish(self, _x: Value, _baseline: Value | None, mean: Value, /) -> Value:
        return mean


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
