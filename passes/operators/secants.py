"""Secants through the origin, `f(z) / z` of functions with f(0) = 0: in closed form where there is one.

A closed form costs no division and has no hole at 0.
"""

from __future__ import annotations

import math
from typing import Any

from passes.graphs.emitter import Value, aten
from passes.operators.activation import ActivationCall, Secant


def quotient(call: ActivationCall) -> Value:
    """The division, and 0 at z = 0: for functions whose slope there may be infinite (roots)."""
    return call.output / (call.x + call.x.equals(0.0))


def smooth(call: ActivationCall) -> Value:
    """The division, and its limit at z = 0, the derivative."""
    inside = call.x.differs(0.0)
    return (call.output / call.x.where(inside, 1.0)).where(inside, call.derivative(call.x.ones()))


def towards_one(call: ActivationCall) -> Value:
    """The division, and its limit 1 at z = 0."""
    at_zero = call.x.equals(0.0)
    return (call.output + at_zero) / (call.x + at_zero)


def slope(call: ActivationCall) -> Value:
    """The derivative, for functions that are linear on both sides of 0."""
    return call.derivative(call.x.ones())


def of_input(target: Any) -> Secant:
    """An operator of z: silu is z σ(z), hardswish z hardsigmoid(z)."""
    return lambda call: call.emit.call(target, call.x)


def gelu(call: ActivationCall) -> Value:
    """Φ(z), or its approximation ½ (1 + tanh(√(2/π) (z + 0.044715 z³)))."""
    z = call.x
    if call.argument("approximate") == "tanh":
        inner = (z + z * z * z * 0.044715) * math.sqrt(2 / math.pi)
        return (call.emit.call(aten.tanh.default, inner) + 1.0) * 0.5
    return (call.emit.call(aten.erf.default, z * math.sqrt(0.5)) + 1.0) * 0.5


def mish(call: ActivationCall) -> Value:
    """tanh(softplus(z))."""
    return call.emit.call(aten.tanh.default, call.emit.call(aten.softplus.default, call.x))
