"""First derivatives of the pointwise non-linearities: torch's own backward operators, or in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from passes.graphs.emitter import Value, aten
from passes.operators.activation import ActivationCall, Derivative


def of_input(backward: Any, *settings: str) -> Derivative:
    """A backward operator of torch that reads z, and `settings` of the forward operator."""
    return lambda call, m: call.emit.call(backward, m, call.x, *map(call.argument, settings))


def of_output(backward: Any) -> Derivative:
    """A backward operator of torch that reads y."""
    return lambda call, m: call.emit.call(backward, m, call.output)


def relu(call: ActivationCall, m: Value) -> Value:
    """[z > 0]."""
    return m.where(call.output > 0, 0.0)


def clamp(call: ActivationCall, m: Value) -> Value:
    """[low < z < high], which is [low < y < high]: y is there for the next layer, z for nobody else."""
    low, high = call.function.bounds(call.node) if call.function.bounds else (-math.inf, math.inf)
    y = call.output
    if low > -math.inf and high < math.inf:
        return m.where((y > low).both(y < high), 0.0)
    return m.where(y > low, 0.0) if low > -math.inf else m.where(y < high, 0.0)


def hard_swish(call: ActivationCall, m: Value) -> Value:
    """1/2 + z / 3 for -3 < z < 3, 1 above."""
    z = call.x
    inner = call.emit.call(aten.clamp.default, z, -3.0, 3.0) / 3.0 + 0.5  # finite where z is not
    return m * (inner.where((z > -3.0).both(z < 3.0), 0.0) + (z >= 3.0))


def elu(call: ActivationCall, m: Value) -> Value:
    """1, and α e^z below 0 (scaled)."""
    return call.emit.call(
        aten.elu_backward.default, m, *map(call.argument, ("alpha", "scale", "input_scale")), False, call.x
    )


def leaky_relu(call: ActivationCall, m: Value) -> Value:
    """1, and the slope below 0."""
    return call.emit.call(aten.leaky_relu_backward.default, m, call.x, call.argument("negative_slope"), False)


def log_sigmoid(call: ActivationCall, m: Value) -> Value:
    """σ(-z)."""
    return m * call.emit.call(aten.sigmoid.default, -call.x)


def silu(call: ActivationCall, m: Value) -> Value:
    """σ(z) + y (1 - σ(z)); exporters know no silu_backward."""
    s = call.emit.call(aten.sigmoid.default, call.x)
    return m * (s + call.output * (-s + 1.0))


def mish(call: ActivationCall, m: Value) -> Value:
    """T + z (1 - t²) σ(z), t = tanh(softplus(z))."""
    z = call.x
    t = call.emit.call(aten.tanh.default, call.emit.call(aten.softplus.default, z))
    return m * (t + z * (-(t * t) + 1.0) * call.emit.call(aten.sigmoid.default, z))


def threshold(call: ActivationCall, m: Value) -> Value:
    """[z > threshold]."""
    return m.where(call.x > call.argument("threshold"), 0.0)


def prelu(call: ActivationCall, m: Value) -> Value:
    """1, and the slope of the channel below 0."""
    return m.where(call.x > 0, m * call.emit.value(call.argument("weight")))


def power(call: ActivationCall, m: Value) -> Value:
    """The power rule p z^(p - 1), and 0 for p = 0."""
    exponent = call.argument("exponent")
    if exponent == 0:
        return m.zeros()
    return m * call.emit.call(aten.pow.Tensor_Scalar, call.x, exponent - 1) * exponent


def power_of_each(call: ActivationCall, m: Value) -> Value:
    """The power rule for stored exponents."""
    p = call.emit.value(call.argument("exponent"))
    slope = call.emit.call(aten.pow.Tensor_Tensor, call.x, p - 1.0) * p
    return m * slope.where(p.differs(0.0), 0.0)


def times(factor: Callable[[ActivationCall], Value]) -> Derivative:
    """M * factor, for a derivative written out in forward operators."""
    return lambda call, m: m * factor(call)


def unary(target: Any) -> Callable[[ActivationCall], Value]:
    """An operator of z."""
    return lambda call: call.emit.call(target, call.x)


def logit(call: ActivationCall, m: Value) -> Value:
    """1 / (x (1 - x)), and 0 where x was clamped to [ε, 1 - ε]."""
    x, epsilon = call.x, call.argument("eps")
    slope = m / (x * (-x + 1.0))
    return slope if epsilon is None else slope.where(x >= epsilon, 0.0).where(-x >= epsilon - 1, 0.0)


def cos(call: ActivationCall, m: Value) -> Value:
    """-sin z."""
    return -(m * call.emit.call(aten.sin.default, call.x))


def atan(call: ActivationCall, m: Value) -> Value:
    """1 / (1 + z²)."""
    return m / (call.x * call.x + 1.0)


def erf(call: ActivationCall, m: Value) -> Value:
    """2 / √π e^(-z²)."""
    return m * call.emit.call(aten.exp.default, -(call.x * call.x)) * (2 / math.sqrt(math.pi))


def gelu(call: ActivationCall, m: Value) -> Value:
    """That of the error function, or of its tanh approximation."""
    return call.emit.call(aten.gelu_backward.default, m, call.x, approximate=call.argument("approximate"))


def inverse_of(square: Callable[[Value], Value], sign: float = 1.0) -> Derivative:
    """± 1 / sqrt(square(z)): the slope of the inverses of sines and cosines."""

    def derivative(call: ActivationCall, m: Value) -> Value:
        return m * call.emit.call(aten.rsqrt.default, square(call.x)) * sign

    return derivative


def erfc(call: ActivationCall, m: Value) -> Value:
    """That of erf, with the other sign."""
    return -erf(call, m)
