"""Functions of one value, a row each: with f', f'' and, where f(0) = 0 and it is known in closed form, f(z) / z."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Final

from passes.graphs.emitter import Value, aten
from passes.operators import curvature as c
from passes.operators import derivatives as d
from passes.operators import secants as s
from passes.operators import signs
from passes.operators.activation import Curvature, Derivative, Pointwise, Secant, between
from passes.operators.operator import Operator

_TENSORS: Final = "its parameters are tensors, or come from the size of an input"


def _pointwise(
    target: Any,
    derivative: Derivative,
    curvature: Curvature,
    sign: signs.SignRule | None = None,
    *,
    secant: Secant = s.smooth,
    gate: bool = False,
    jumps: bool = False,
) -> Operator:
    """A function of one value, with numbers for parameters."""
    return Operator((target,), (Pointwise(derivative, curvature, secant, jumps=jumps),), sign, gate, _TENSORS)


def _clamp(target: Any, low: str | None, high: str | None) -> Operator:
    """A clamp to numbers, in the arguments of these names."""
    bounds = between(low, high)
    return Operator(
        (target,), (Pointwise(d.clamp, c.flat, s.smooth, bounds),), partial(signs.clamp, bounds), refusal=_TENSORS
    )


def _below_one(z: Value) -> Value:
    return -(z * z) + 1.0


def _above_one(z: Value) -> Value:
    return z * z + 1.0


def _from_one(z: Value) -> Value:
    return z * z - 1.0


FUNCTIONS: Final[tuple[Operator, ...]] = (
    Operator((aten.relu.default,), (Pointwise(d.relu, c.flat, s.slope, lambda _node: (0.0, math.inf)),), signs.relu),
    _clamp(aten.clamp.default, "min", "max"),
    _clamp(aten.clamp_min.default, "min", None),
    _clamp(aten.clamp_max.default, None, "max"),
    _clamp(aten.hardtanh.default, "min_val", "max_val"),
    _pointwise(aten.elu.default, d.elu, c.elu),
    _pointwise(aten.leaky_relu.default, d.leaky_relu, c.flat, secant=s.slope),
    Operator(
        (aten._prelu_kernel.default,),
        (Pointwise(d.prelu, c.flat, s.slope, parametric=True),),
        refusal="its slopes depend on the input",
    ),
    _pointwise(aten.threshold.default, d.threshold, c.flat, jumps=True),
    _pointwise(aten.log_sigmoid.default, d.log_sigmoid, lambda call: -c.bump(c.logistic(call.x))),
    _pointwise(aten.gelu.default, d.gelu, c.gelu, secant=s.gelu),
    _pointwise(aten.hardshrink.default, d.of_input(aten.hardshrink_backward.default, "lambd"), c.flat, jumps=True),
    _pointwise(
        aten.hardsigmoid.default, d.of_input(aten.hardsigmoid_backward.default), c.flat, signs.positive, gate=True
    ),
    _pointwise(aten.hardswish.default, d.hard_swish, c.hardswish, secant=s.of_input(aten.hardsigmoid.default)),
    _pointwise(aten.mish.default, d.mish, c.mish, secant=s.mish),
    _pointwise(aten.silu.default, d.silu, c.silu, secant=s.of_input(aten.sigmoid.default)),
    _pointwise(
        aten.softplus.default,
        d.of_input(aten.softplus_backward.default, "beta", "threshold"),
        c.softplus,
        signs.positive,
    ),
    _pointwise(aten.softshrink.default, d.of_input(aten.softshrink_backward.default, "lambd"), c.flat),
    _pointwise(aten.sigmoid.default, d.of_output(aten.sigmoid_backward.default), c.sigmoid, signs.positive, gate=True),
    _pointwise(aten.tanh.default, d.of_output(aten.tanh_backward.default), c.tanh, secant=s.towards_one, gate=True),
    _pointwise(aten.exp.default, d.times(lambda call: call.output), lambda call: call.output, signs.positive),
    _pointwise(aten.log.default, lambda call, m: m / call.x, lambda call: c.log(call.x)),
    _pointwise(aten.log1p.default, lambda call, m: m / (call.x + 1.0), lambda call: c.log(call.x + 1.0)),
    _pointwise(aten.expm1.default, d.times(lambda call: call.output + 1.0), lambda call: call.output + 1.0),
    _pointwise(aten.sqrt.default, lambda call, m: m / (call.output * 2.0), c.sqrt, secant=s.quotient),
    _pointwise(aten.rsqrt.default, d.times(lambda call: c.cubed(call.output) * -0.5), c.rsqrt, jumps=True),
    _pointwise(
        aten.reciprocal.default,
        d.times(lambda call: -(call.output * call.output)),
        lambda call: c.cubed(call.output) * 2.0,
        jumps=True,
    ),
    _pointwise(aten.abs.default, d.times(d.unary(aten.sign.default)), c.flat, signs.magnitude),
    _pointwise(aten.sin.default, d.times(d.unary(aten.cos.default)), lambda call: -call.output),
    _pointwise(aten.cos.default, d.cos, lambda call: -call.output),
    _pointwise(aten.atan.default, d.atan, c.atan),
    _pointwise(aten.erf.default, d.erf, c.erf),
    _pointwise(aten.erfc.default, d.erfc, c.erf, signs.positive),
    _pointwise(
        aten.tan.default,
        d.times(lambda call: call.output * call.output + 1.0),
        lambda call: call.output * (call.output * call.output + 1.0) * 2.0,
    ),
    _pointwise(aten.asin.default, d.inverse_of(_below_one), c.inverse_of(_below_one)),
    _pointwise(aten.acos.default, d.inverse_of(_below_one, -1.0), c.inverse_of(_below_one, -1.0), signs.positive),
    _pointwise(aten.sinh.default, d.times(d.unary(aten.cosh.default)), lambda call: call.output),
    _pointwise(aten.cosh.default, d.times(d.unary(aten.sinh.default)), lambda call: call.output, signs.positive),
    _pointwise(aten.asinh.default, d.inverse_of(_above_one), c.inverse_of(_above_one, -1.0)),
    _pointwise(aten.acosh.default, d.inverse_of(_from_one), c.inverse_of(_from_one, -1.0), signs.positive),
    _pointwise(aten.atanh.default, lambda call, m: m / _below_one(call.x), c.atanh),
    _pointwise(aten.logit.default, d.logit, c.logit),
    _pointwise(aten.pow.Tensor_Scalar, d.power, c.power, secant=s.quotient),
    Operator(
        (aten.pow.Tensor_Tensor,),
        (Pointwise(d.power_of_each, c.power_of_each, s.quotient, jumps=True, parametric=True),),
        refusal="its exponents depend on the input",
    ),
)
