"""Pointwise non-linearities `y = f(z)`: the derivative (torch's own backward operators) and the value at 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import argument, run_node, schema_of
from passes.operators.call import Adjoints, Call, UnaryCall

# (call, arriving multiplier m) -> m f'(z), in the backward operators of torch.
Derivative: TypeAlias = Callable[["ActivationCall", Value], Value]


@dataclass(frozen=True, eq=False)
class ActivationCall(UnaryCall):
    """`y = f(z)`, elementwise."""

    kind = "activation"

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (self.derivative(multiplier),)

    def derivative(self, multiplier: Value) -> Value:
        """Multiplier times f'(z)."""
        return DERIVATIVES[self.node.target](self, multiplier)

    @property
    def is_relu(self) -> bool:
        """max(z, 0), however the model spells it."""
        bounds = clamp_bounds(self.node)
        return self.node.target is aten.relu.default or bounds == (0.0, math.inf)

    @property
    def vanishes_at_zero(self) -> bool:
        """f(0) = 0 and f is continuous there, so that y / z has no pole."""
        return self.node.target not in _STEPS and bool((self._sampled(0.0) == 0).all())

    @property
    def takes_any_number(self) -> bool:
        """Finite on both sides of 0, and at 0."""
        return all(bool(self._sampled(z).isfinite().all()) for z in (-2.5, 0.0, 2.5))

    def _sampled(self, z: float) -> torch.Tensor:
        constants = [_sample(a) for a in self.node.args[1:]]
        keywords = {key: _sample(a) for key, a in self.node.kwargs.items()}
        at: Any = torch.full((1,), z, dtype=torch.float64)
        result: Any = run_node(self.node, (at, *constants), keywords)
        return result


def clamp_bounds(node: Node) -> tuple[float, float] | None:
    """(low, high) of an operator that clamps to constant bounds, else None."""
    if node.target is aten.clamp_min.default:
        low, high = argument(node, 1), None
    elif node.target is aten.clamp_max.default:
        low, high = None, argument(node, 1)
    elif node.target in (aten.clamp.default, aten.hardtanh.default):
        low, high = argument(node, 1), argument(node, 2)
    else:
        return None
    return (-math.inf if low is None else float(low), math.inf if high is None else float(high))


def is_pointwise_clamp(node: Node) -> bool:
    """The bounds are numbers, not tensors."""
    return not any(isinstance(a, Node) for a in node.args[1:])


def _sample(argument_: Any) -> Any:
    """A stand-in for a constant operand (PReLU's slopes): its value does not matter at zero."""
    return torch.full((1,), 0.5, dtype=torch.float64) if isinstance(argument_, Node) else argument_


def _of_input(backward: Any) -> Derivative:
    """backward(m, z, *attributes of the forward operator)."""
    return lambda call, m: call.emit.call(backward, m, call.x, *_attributes(call), **call.node.kwargs)


def _of_output(backward: Any) -> Derivative:
    """backward(m, y)."""
    return lambda call, m: call.emit.call(backward, m, call.output)


def _attributes(call: Call) -> list[Any]:
    schema = schema_of(call.node)
    return [call.argument(k) for k in range(1, len(schema)) if not schema[k].kwarg_only]


def _relu(call: ActivationCall, m: Value) -> Value:
    return m.where(call.output > 0, 0.0)


def _clamp(call: ActivationCall, m: Value) -> Value:
    low, high = clamp_bounds(call.node) or (-math.inf, math.inf)
    z = call.x
    if low > -math.inf:
        m = m.where(z > low, 0.0)
    return m.where(z < high, 0.0) if high < math.inf else m


def _elu(call: ActivationCall, m: Value) -> Value:
    return call.emit.call(aten.elu_backward.default, m, *_attributes(call), False, call.x)


def _leaky_relu(call: ActivationCall, m: Value) -> Value:
    return call.emit.call(aten.leaky_relu_backward.default, m, call.x, call.argument(1), False)


def _log_sigmoid(call: ActivationCall, m: Value) -> Value:
    return m * call.emit.call(aten.sigmoid.default, -call.x)


def _silu(call: ActivationCall, m: Value) -> Value:
    """σ(z) + y (1 - σ(z)); exporters know no silu_backward."""
    s = call.emit.call(aten.sigmoid.default, call.x)
    return m * (s + call.output * (-s + 1.0))


def _mish(call: ActivationCall, m: Value) -> Value:
    """T + z (1 - t²) σ(z), t = tanh(softplus(z))."""
    z = call.x
    t = call.emit.call(aten.tanh.default, call.emit.call(aten.softplus.default, z))
    return m * (t + z * (-(t * t) + 1.0) * call.emit.call(aten.sigmoid.default, z))


def _threshold(call: ActivationCall, m: Value) -> Value:
    return m.where(call.x > call.argument(1), 0.0)


def _prelu(call: ActivationCall, m: Value) -> Value:
    return m.where(call.x > 0, m * call.emit.value(call.argument(1)))


def _power(call: ActivationCall, m: Value) -> Value:
    exponent = call.argument(1)
    if exponent == 0:
        return m.zeros()
    return m * call.emit.call(aten.pow.Tensor_Scalar, call.x, exponent - 1) * exponent


def _times(factor: Callable[[ActivationCall], Value]) -> Derivative:
    """M * factor, for a derivative written out in forward operators."""
    return lambda call, m: m * factor(call)


def _unary(target: Any) -> Callable[[ActivationCall], Value]:
    return lambda call: call.emit.call(target, call.x)


def _logit(call: ActivationCall, m: Value) -> Value:
    """1 / (x (1 - x)), and 0 where x was clamped to [ε, 1 - ε]."""
    x, epsilon = call.x, call.argument(1)
    slope = m / (x * (-x + 1.0))
    return slope if epsilon is None else slope.where(x >= epsilon, 0.0).where(-x >= epsilon - 1, 0.0)


DERIVATIVES: dict[Any, Derivative] = {
    aten.relu.default: _relu,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp,
    aten.elu.default: _elu,
    aten.leaky_relu.default: _leaky_relu,
    aten._prelu_kernel.default: _prelu,
    aten.threshold.default: _threshold,
    aten.log_sigmoid.default: _log_sigmoid,
    aten.gelu.default: _of_input(aten.gelu_backward.default),
    aten.hardshrink.default: _of_input(aten.hardshrink_backward.default),
    aten.hardsigmoid.default: _of_input(aten.hardsigmoid_backward.default),
    aten.hardswish.default: _of_input(aten.hardswish_backward.default),
    aten.hardtanh.default: _of_input(aten.hardtanh_backward.default),
    aten.mish.default: _mish,
    aten.silu.default: _silu,
    aten.softplus.default: _of_input(aten.softplus_backward.default),
    aten.softshrink.default: _of_input(aten.softshrink_backward.default),
    aten.sigmoid.default: _of_output(aten.sigmoid_backward.default),
    aten.tanh.default: _of_output(aten.tanh_backward.default),
    aten.exp.default: _times(lambda call: call.output),
    aten.log.default: lambda call, m: m / call.x,
    aten.log1p.default: lambda call, m: m / (call.x + 1.0),
    aten.expm1.default: _times(lambda call: call.output + 1.0),
    aten.sqrt.default: lambda call, m: m / (call.output * 2.0),
    aten.rsqrt.default: _times(lambda call: call.output * call.output * call.output * -0.5),
    aten.reciprocal.default: _times(lambda call: -(call.output * call.output)),
    aten.abs.default: _times(_unary(aten.sign.default)),
    aten.sin.default: _times(_unary(aten.cos.default)),
    aten.cos.default: lambda call, m: -(m * call.emit.call(aten.sin.default, call.x)),
    aten.atan.default: lambda call, m: m / (call.x * call.x + 1.0),
    aten.erf.default: lambda call, m: (
        m * call.emit.call(aten.exp.default, -(call.x * call.x)) * (2 / math.sqrt(math.pi))
    ),
    aten.logit.default: _logit,
    aten.pow.Tensor_Scalar: _power,
}

_STEPS = (aten.hardshrink.default, aten.threshold.default, aten.rsqrt.default, aten.reciprocal.default)


def build_activation(node: Node, emit: Emitter, _active: Callable[[Node], bool]) -> Call:
    """A pointwise function of its first argument."""
    return ActivationCall(node, emit, (argument(node, 0),))
