"""Root-learning nodes: the search for a layer's root, unrolled into the graph.

A layer answers f(x) to its input x. The search splits x into a signal s, which explains the relevance R that arrives at
the layer, and the root x - s:

    s_0 = start,    s_{t+1} = Π(s_t - η_t ⊙ ∇_s loss(f(s_t), R)),    t = 0, ..., steps - 1.

The gradient is written in closed form, through the layer's own adjoint. Losses are means over one sample, so a root
does not depend on the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol, TypeAlias, final

from passes.graphs.emitter import Value, aten
from passes.operators.activation import ActivationCall
from passes.operators.affine import AffineCall
from passes.operators.arithmetic import scaled
from passes.relevance.protocol.found_root import Root
from relcompile.methods.rules.roots.root_losses import Loss

Start: TypeAlias = Literal["input", "ones", "zeros"]


class Response(Protocol):
    """What a layer answers to a signal, and the adjoint of that."""

    def apply(self, signal: Value, /) -> Value:
        """f(s)."""
        ...

    def pullback(self, signal: Value, cotangent: Value, /) -> Value:
        """(∂f/∂s)ᵀ cotangent, at s."""
        ...


@final
@dataclass(frozen=True)
class AffineResponse:
    """f(s) = W s + b, with any weight and bias in the layer's geometry."""

    call: AffineCall
    weight: Value
    bias: Value | None = None

    def apply(self, signal: Value, /) -> Value:
        return self.call.apply(signal, self.weight, self.bias)

    def pullback(self, _signal: Value, cotangent: Value, /) -> Value:
        return self.call.transposed(cotangent, self.weight)


@final
@dataclass(frozen=True)
class PointwiseResponse:
    """f of an activation, elementwise."""

    call: ActivationCall

    def apply(self, signal: Value, /) -> Value:
        return self.call.at(signal).output

    def pullback(self, signal: Value, cotangent: Value, /) -> Value:
        return self.call.at(signal).derivative(cotangent)


@final
@dataclass(frozen=True)
class SoftmaxResponse:
    """Softmax over the last `axes` axes taken together: of the signal itself, or of what `inner` answers."""

    inner: Response | None = None
    axes: int = 1

    def apply(self, signal: Value, /) -> Value:
        return softmax(signal if self.inner is None else self.inner.apply(signal), self.axes)

    def pullback(self, signal: Value, cotangent: Value, /) -> Value:
        y = self.apply(signal)
        weighted = cotangent * y
        dims = range(y.ndim - self.axes, y.ndim)
        of_scores = weighted - y * weighted.sum(dims, keepdim=True)
        return of_scores if self.inner is None else self.inner.pullback(signal, of_scores)


class Constraint(Protocol):
    """Where signals may lie."""

    def project(self, signal: Value, x: Value, /) -> Value:
        """The nearest allowed signal."""
        ...


@final
@dataclass(frozen=True)
class BetweenZeroAndInput:
    """0 <= s <= x, or x <= s <= 0: signal and root are parts of x."""

    def project(self, signal: Value, x: Value, /) -> Value:
        return clamped(signal, x.negative, x.positive)


@final
@dataclass(frozen=True)
class RootInBox:
    """low <= x - s <= high: the root is an input that the layer may get."""

    low: float
    high: float

    def project(self, signal: Value, x: Value, /) -> Value:
        return clamped(signal, x - self.high, x - self.low)


@final
@dataclass(frozen=True)
class LinearRegion:
    """Coordinates stop where the layer bends: their step size decays once the slopes at x and at the root differ.

    Equation: η ← η 10^(-max(0, rate (|f'(x) - f'(x - s)| - tolerance))), f' the gradient of the summed answer.
    """

    tolerance: float = 0.15
    rate: float = 10.0

    def decay(self, slope_at_x: Value, slope_at_root: Value) -> Value:
        """The factor of every coordinate's step size."""
        emit = slope_at_x.emit
        excess = (slope_at_x - slope_at_root).magnitude - self.tolerance
        return emit.call(aten.exp.default, excess.positive * (-self.rate * math.log(10.0)))


@final
@dataclass(frozen=True)
class Descent:
    """How the signal is searched for.

    Args:
        loss: of the answer f(s) and the arriving relevance.
        steps: their fixed number, >= 0.
        step_size: η > 0.
        start: s_0: the input itself, ones, or zeros.
        ascend: climb the loss instead.
        largest_gradient: elements of the gradient above this are cut to it (only above); None cuts nothing.
        constraint: Π; None leaves the signal free.
        region: freezes coordinates that leave the layer's linear region; None freezes nothing.
    """

    loss: Loss
    steps: int
    step_size: float = 1.0
    start: Start = "input"
    ascend: bool = False
    largest_gradient: float | None = None
    constraint: Constraint | None = None
    region: LinearRegion | None = None

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.step_size < math.inf:
            raise ValueError(f"steps={self.steps}, step_size={self.step_size}: want 0 steps or more of a size above 0")


def learn_root(response: Response, x: Value, R: Value, descent: Descent) -> Root:
    """Write the search for the root of `response` at `x`, given the relevance `R` of its answer."""
    first = signal = first_signal(x, descent.start)
    step_size: Value | float = -descent.step_size if descent.ascend else descent.step_size
    slope_at_x = slope(response, x) if descent.region is not None and descent.steps else x
    for _ in range(descent.steps):
        gradient = response.pullback(signal, descent.loss.gradient(response.apply(signal), R))
        if descent.largest_gradient is not None:
            gradient = x.emit.call(aten.clamp_max.default, gradient, descent.largest_gradient)
        signal = signal - (scaled(gradient, step_size) if isinstance(step_size, float) else gradient * step_size)
        if descent.constraint is not None:
            signal = descent.constraint.project(signal, x)
        if descent.region is not None:
            step_size = descent.region.decay(slope_at_x, slope(response, x - signal)) * step_size
    before, after = (descent.loss.value(response.apply(s), R) for s in (first, signal))
    return Root(x, signal, before, after)


def first_signal(x: Value, start: Start) -> Value:
    """s_0."""
    return {"input": lambda: x, "ones": x.ones, "zeros": x.zeros}[start]()


def slope(response: Response, x: Value) -> Value:
    """The gradient of the summed answer, at x."""
    return response.pullback(x, response.apply(x).ones())


def softmax(scores: Value, axes: int = 1) -> Value:
    """Softmax over the last `axes` axes, taken together."""
    if axes == 1:
        return scores.emit.call(aten.softmax.int, scores, -1)
    together = scores.reshape([*scores.shape[:-axes], prod(scores.shape[-axes:])])
    return scores.emit.call(aten.softmax.int, together, -1).reshape_like(scores)


def clamped(value: Value, low: Value, high: Value) -> Value:
    """min(max(value, low), high), elementwise."""
    emit = value.emit
    return emit.call(aten.minimum.default, emit.call(aten.maximum.default, value, low), high)
