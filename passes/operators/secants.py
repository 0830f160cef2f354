"""Secants through the origin: `f(z) / z` of functions with f(0) = 0, in closed form where there is one.

A closed form costs no division and has no hole at 0, where the secant is the derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from passes.graphs.emitter import Value, aten
from passes.operators.activation import ActivationCall, clamp_bounds

Secant: TypeAlias = Callable[[ActivationCall], Value]


def secant(call: ActivationCall) -> Value:
    """`f(z) / z`, and f'(0) at 0."""
    closed = _CLOSED.get(call.node.target)
    return _quotient(call) if closed is None else closed(call)


def _quotient(call: ActivationCall) -> Value:
    """The division where it means something, the derivative where it does not."""
    z = call.x
    tiny = z.magnitude < _TINY
    return call.derivative(z.ones()).where(tiny, call.output / z.ones().where(tiny, z))


_TINY: Final = 1e-6
"""Below it f(z) / z and f'(0) differ by less than rounding in float32."""


def _step(call: ActivationCall) -> Value:
    return call.x.ones().where(call.x > 0, 0.0)


def _unary(target: Any) -> Secant:
    return lambda call: call.emit.call(target, call.x)


def _gelu(call: ActivationCall) -> Value:
    """Φ(z), or the approximation of it."""
    z = call.x
    if call.argument(1) == "tanh":
        inner = (z + z * z * z * 0.044715) * math.sqrt(2 / math.pi)
        return (call.emit.call(aten.tanh.default, inner) + 1.0) * 0.5
    return (call.emit.call(aten.erf.default, z * math.sqrt(0.5)) + 1.0) * 0.5


def _mish(call: ActivationCall) -> Value:
    return call.emit.call(aten.tanh.default, call.emit.call(aten.softplus.default, call.x))


def _leaky(call: ActivationCall) -> Value:
    z = call.x
    return z.ones().where(z > 0, float(call.argument(1)))


_CLOSED: dict[Any, Secant] = {
    aten.relu.default: _step,
    aten.leaky_relu.default: _leaky,
    aten.silu.default: _unary(aten.sigmoid.default),
    aten.hardswish.default: _unary(aten.hardsigmoid.default),
    aten.gelu.default: _gelu,
    aten.mish.default: _mish,
}
