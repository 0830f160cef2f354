"""Second derivatives of the pointwise non-linearities, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

from passes.graphs.emitter import Value, aten
from passes.operators.activation import ActivationCall


def flat(call: ActivationCall) -> Value:
    """Piecewise linear."""
    return call.x.zeros()


def logistic(z: Value) -> Value:
    """The logistic function σ."""
    return z.emit.call(aten.sigmoid.default, z)


def bump(s: Value) -> Value:
    """σ' = s (1 - s)."""
    return s * (-s + 1.0)


def _tanh(z: Value) -> Value:
    return z.emit.call(aten.tanh.default, z)


def tanh(call: ActivationCall) -> Value:
    """-2 y (1 - y²)."""
    return call.output * (call.output * call.output - 1.0) * 2.0


def sigmoid(call: ActivationCall) -> Value:
    """It is σ' (1 - 2 σ)."""
    return bump(call.output) * (call.output * -2.0 + 1.0)


def softplus(call: ActivationCall) -> Value:
    """It is β σ', and 0 above the threshold."""
    beta, threshold = float(call.argument("beta")), float(call.argument("threshold"))
    scaled = call.x * beta
    bend = bump(logistic(scaled)) * beta
    return bend.where(scaled < threshold, 0.0)


def silu(call: ActivationCall) -> Value:
    """It is σ' (2 + z (1 - 2 σ))."""
    s = logistic(call.x)
    return bump(s) * (call.x * (s * -2.0 + 1.0) + 2.0)


def mish(call: ActivationCall) -> Value:
    """2 t' + z t'' with t = tanh(softplus(z)), t' = (1 - t²) σ, t'' = t' (1 - σ - 2 t σ)."""
    s = logistic(call.x)
    t = _tanh(call.emit.call(aten.softplus.default, call.x))
    slope = (-(t * t) + 1.0) * s
    return slope * (call.x * (-s + 1.0 - t * s * 2.0) + 2.0)


def gelu(call: ActivationCall) -> Value:
    """With the normal density φ: φ (2 - z²), or that of the tanh approximation."""
    if call.argument("approximate") == "tanh":
        return _of_tanh_gelu(call.x)
    square = call.x * call.x
    density = call.emit.call(aten.exp.default, square * -0.5) * (1 / math.sqrt(2 * math.pi))
    return density * (-square + 2.0)


def _of_tanh_gelu(z: Value) -> Value:
    """(1 - t²)(u' + z (u'' / 2 - t u'²)) with t = tanh(u), u = c (z + a z³)."""
    a, c = 0.044715, math.sqrt(2 / math.pi)
    square = z * z
    t = _tanh(z * (square * a + 1.0) * c)
    slope, bend = (square * (3 * a) + 1.0) * c, z * (6 * a * c)
    return (-(t * t) + 1.0) * (slope + z * (bend * 0.5 - t * slope * slope))


def elu(call: ActivationCall) -> Value:
    """Below 0 it is α e^z (scaled)."""
    alpha, scale, inner = (float(call.argument(name)) for name in ("alpha", "scale", "input_scale"))
    below = call.emit.call(aten.exp.default, call.x.negative * inner) * (alpha * scale * inner * inner)
    return below.where(call.x < 0, 0.0)


def hardswish(call: ActivationCall) -> Value:
    """1/3 inside."""
    inside = (call.x.ones() * (1 / 3)).where(call.x > -3.0, 0.0)
    return inside.where(call.x < 3.0, 0.0)


def power(call: ActivationCall) -> Value:
    """By the power rule, p (p - 1) z^(p - 2)."""
    p = call.argument("exponent")
    return call.emit.call(aten.pow.Tensor_Scalar, call.x, p - 2) * (p * (p - 1))


def power_of_each(call: ActivationCall) -> Value:
    """The same for stored exponents."""
    p = call.emit.value(call.argument("exponent"))
    return call.emit.call(aten.pow.Tensor_Tensor, call.x, p - 2.0) * (p * (p - 1.0))


def log(z: Value) -> Value:
    """-1 / z²."""
    return -(z.ones() / (z * z))


def erf(call: ActivationCall) -> Value:
    """-2 z f'."""
    return call.x * call.derivative(call.x.ones()) * -2.0


def atan(call: ActivationCall) -> Value:
    """-2 z / (1 + z²)²."""
    root = call.x * call.x + 1.0
    return call.x * -2.0 / (root * root)


def logit(call: ActivationCall) -> Value:
    """(2 z - 1) / (z (1 - z))², and 0 where z was clamped to [ε, 1 - ε]."""
    z, variance, epsilon = call.x, bump(call.x), call.argument("eps")
    bend = (z * 2.0 - 1.0) / (variance * variance)
    return bend if epsilon is None else bend.where(z >= epsilon, 0.0).where(-z >= epsilon - 1, 0.0)


def cubed(y: Value) -> Value:
    """The cube y³."""
    return y * y * y


def sqrt(call: ActivationCall) -> Value:
    """It is -1 / (4 y³)."""
    return call.x.ones() / (cubed(call.output) * -4.0)


def rsqrt(call: ActivationCall) -> Value:
    """It is 3/4 y⁵."""
    return cubed(call.output) * call.output * call.output * 0.75


def inverse_of(square: Callable[[Value], Value], sign: float = 1.0) -> Callable[[ActivationCall], Value]:
    """± z / sqrt(square(z))³: of the inverses of sines and cosines."""
    return lambda call: call.x * cubed(call.emit.call(aten.rsqrt.default, square(call.x))) * sign


def atanh(call: ActivationCall) -> Value:
    """2 z / (1 - z²)²."""
    root = -(call.x * call.x) + 1.0
    return call.x * 2.0 / (root * root)
