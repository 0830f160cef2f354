"""Choices between two values -> sums of products with their condition, read as 0 and 1.

ONNX Runtime's CPU provider takes 15 to 25 products for a choice. Where the condition is known by its form, both
values are finite if what they are computed from is; a model's own choice between others may hide an infinite one.
"""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import argument, arguments
from passes.operators.affine import AffineCall
from passes.operators.table import is_a


def stabilised(value: Any) -> tuple[Node | None, Any]:
    """(z, ε) of `where(z >= 0, z + ε, z - ε)`, ε a number or a node; else (None, 0)."""
    if not isinstance(value, Node) or value.target is not aten.where.self:
        return None, 0.0
    condition, plus, minus = arguments(value)
    targets = [getattr(part, "target", None) for part in (condition, plus, minus)]
    if targets != [aten.ge.Scalar, aten.add.Tensor, aten.sub.Tensor]:
        return None, 0.0
    z, epsilon = arguments(plus)
    same = arguments(condition) == (z, 0) and arguments(minus) == (z, epsilon)
    return (z, epsilon) if same else (None, 0.0)


def as_product(node: Node, emit: Emitter) -> Value | None:
    """where(c, m, 0) = m c, and c itself if m is 1."""
    condition, value, otherwise = arguments(node)
    if otherwise != 0:
        return None
    m, c = emit.value(value), emit.value(condition)
    return _number(c, m) if value.target is aten.ones_like.default and c.shape == m.shape else m * c


def as_sum(node: Node, emit: Emitter) -> Value | None:
    """⟨z⟩ε = z + (2 ε [z >= 0] - ε), equal to the last bit; where(c, W a, V b) = c W a + (1 - c) V b."""
    z, epsilon = stabilised(node)
    condition, a, b = arguments(node)
    if z is not None:
        value = emit.value(z)
        if isinstance(epsilon, Node):
            epsilon = emit.value(epsilon)
        return value + (_number(emit.value(condition), value) * (epsilon * 2.0) - epsilon)
    if not all(isinstance(map_, Node) and is_a(map_, AffineCall) for map_ in (a, b)):
        return None
    left, right = _either(emit.value(condition), emit.value(a))
    return emit.value(a) * left + emit.value(b) * right


def leaky_slope(node: Node, emit: Emitter) -> Value:
    """M [z > 0] + m s [z <= 0]."""
    m, z = (emit.value(operand) for operand in arguments(node)[:2])
    above, below = _either(z > 0, m)
    return m * (above + below * argument(node, "negative_slope"))


def elu_slope(node: Node, emit: Emitter) -> Value | None:
    """Scale m [z > 0] + α scale b m e^(b z) [z <= 0], b the scale of the input."""
    m, z = emit.value(argument(node, "grad_output")), emit.value(argument(node, "self_or_result"))
    alpha, scale, inner = (float(argument(node, name)) for name in ("alpha", "scale", "input_scale"))
    if argument(node, "is_result"):
        return None
    above, below = _either(z > 0, m)
    power = emit.call(aten.exp.default, z.negative * inner) * (alpha * scale * inner)
    return m * (above * scale + below * power)


def _either(condition: Value, like: Value) -> tuple[Value, Value]:
    """1 where the condition holds, and 1 where it does not."""
    opposite = condition.emit.call(aten.logical_not.default, condition)
    return _number(condition, like), _number(opposite, like)


def _number(condition: Value, like: Value) -> Value:
    return condition.emit.call(aten._to_copy.default, condition, dtype=like.fake.dtype)
