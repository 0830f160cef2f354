"""Second derivatives of the pointwise non-linearities, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from passes.graphs.emitter import Value, aten
from passes.operators.activation import ActivationCall

# call -> f''(z)
Curvature: TypeAlias = Callable[[ActivationCall], Value]


def curvature(call: ActivationCall) -> Value:
    """f''(z) of an activation; 0 at the kinks of a piecewise linear one."""
    return SECOND_DERIVATIVES[call.node.target](call)


def _none(call: ActivationCall) -> Value:
    return call.x.zeros()


def _logistic(z: Value) -> Value:
    return z.emit.call(aten.sigmoid.default, z)


def _bump(s: Value) -> Value:
    """σ' = s (1 - s)."""
    return s * (-s + 1.0)


def _tanh(z: Value) -> Value:
    return z.emit.call(aten.tanh.default, z)


def _of_tanh(call: ActivationCall) -> Value:
    return call.output * (call.output * call.output - 1.0) * 2.0


def _of_sigmoid(call: ActivationCall) -> Value:
    return _bump(call.output) * (call.output * -2.0 + 1.0)


def _of_softplus(call: ActivationCall) -> Value:
    beta, threshold = float(call.argument(1)), float(call.argument(2))
    scaled = call.x * beta
    bend = _bump(_logistic(scaled)) * beta
    return bend.where(scaled < threshold, 0.0)


def _of_silu(call: ActivationCall) -> Value:
    s = _logistic(call.x)
    return _bump(s) * (call.x * (s * -2.0 + 1.0) + 2.0)


def _of_mish(call: ActivationCall) -> Value:
    """2 t' + z t'' with t = tanh(softplus(z)), t' = (1 - t²) σ, t'' = t' (1 - σ - 2 t σ)."""
    s = _logistic(call.x)
    t = _tanh(call.emit.call(aten.softplus.default, call.x))
    slope = (-(t * t) + 1.0) * s
    return slope * (call.x * (-s + 1.0 - t * s * 2.0) + 2.0)


def _of_gelu(call: ActivationCall) -> Value:
    if call.node.kwargs.get("approximate", "none") == "tanh":
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


def _of_elu(call: ActivationCall) -> Value:
    alpha, scale, inner = (float(call.argument(k)) for k in (1, 2, 3))
    below = call.emit.call(aten.exp.default, call.x.negative * inner) * (alpha * scale * inner * inner)
    return below.where(call.x < 0, 0.0)


def _of_hardswish(call: ActivationCall) -> Value:
    inside = (call.x.ones() * (1 / 3)).where(call.x > -3.0, 0.0)
    return inside.where(call.x < 3.0, 0.0)


def _of_power(call: ActivationCall) -> Value:
    p = call.argument(1)
    return call.emit.call(aten.pow.Tensor_Scalar, call.x, p - 2) * (p * (p - 1))


def _of_log(z: Value) -> Value:
    return -(z.ones() / (z * z))


def _of_erf(call: ActivationCall) -> Value:
    return call.x * call.derivative(call.x.ones()) * -2.0


def _of_atan(call: ActivationCall) -> Value:
    root = call.x * call.x + 1.0
    return call.x * -2.0 / (root * root)


def _of_logit(call: ActivationCall) -> Value:
    variance = _bump(call.x)
    return (call.x * 2.0 - 1.0) / (variance * variance)


def _cubed(y: Value) -> Value:
    return y * y * y


_PIECEWISE_LINEAR: tuple[Any, ...] = (
    aten.relu.default,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
    aten.leaky_relu.default,
    aten._prelu_kernel.default,
    aten.threshold.default,
    aten.hardshrink.default,
    aten.hardsigmoid.default,
    aten.hardtanh.default,
    aten.softshrink.default,
    aten.abs.default,
)

SECOND_DERIVATIVES: dict[Any, Curvature] = {
    **dict.fromkeys(_PIECEWISE_LINEAR, _none),
    aten.elu.default: _of_elu,
    aten.log_sigmoid.default: lambda call: -_bump(_logistic(call.x)),
    aten.gelu.default: _of_gelu,
    aten.hardswish.default: _of_hardswish,
    aten.mish.default: _of_mish,
    aten.silu.default: _of_silu,
    aten.softplus.default: _of_softplus,
    aten.sigmoid.default: _of_sigmoid,
    aten.tanh.default: _of_tanh,
    aten.exp.default: lambda call: call.output,
    aten.log.default: lambda call: _of_log(call.x),
    aten.log1p.default: lambda call: _of_log(call.x + 1.0),
    aten.expm1.default: lambda call: call.output + 1.0,
    aten.sqrt.default: lambda call: call.x.ones() / (_cubed(call.output) * -4.0),
    aten.rsqrt.default: lambda call: _cubed(call.output) * call.output * call.output * 0.75,
    aten.reciprocal.default: lambda call: _cubed(call.output) * 2.0,
    aten.sin.default: lambda call: -call.output,
    aten.cos.default: lambda call: -call.output,
    aten.atan.default: _of_atan,
    aten.erf.default: _of_erf,
    aten.logit.default: _of_logit,
    aten.pow.Tensor_Scalar: _of_power,
}
