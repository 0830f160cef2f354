"""Choices between two values -> sums of products with their condition, read as 0 and 1.

ONNX Runtime's CPU provider takes 15 to 25 products for a choice. Where the condition is known by its form, both
values are finite if what they are computed from is; a model's own choice between others may hide an infinite one.
"""

from __future__ import annotations

from typing import Any

import torch
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
    """where(c, m, 0) = m c."""
    condition, value, otherwise = arguments(node)
    return emit.value(value) * emit.value(condition) if otherwise == 0 else None


def as_sum(node: Node, emit: Emitter) -> Value | None:
    """⟨z⟩ε = z + (2 ε [z >= 0] - ε), with equal bits; where(c, W a, V b) = c W a + (1 - c) V b."""
    z, epsilon = stabilised(node)
    condition, a, b = arguments(node)
    if z is not None:
        level: Any = emit.value(epsilon) if isinstance(epsilon, Node) else epsilon
        twice = level * 2.0 if isinstance(level, Value) else _stored(2.0 * level, emit.value(z))
        return emit.value(z) + (twice * emit.value(condition) - level)
    if not all(isinstance(map_, Node) and is_a(map_, AffineCall) for map_ in (a, b)):
        return None
    return emit.value(a) * emit.value(condition) + emit.value(b) * _opposite(emit.value(condition))


def leaky_slope(node: Node, emit: Emitter) -> Value:
    """M ([z > 0] + s [z <= 0])."""
    m, z = (emit.value(operand) for operand in arguments(node)[:2])
    slope = _stored(argument(node, "negative_slope"), m)
    return m * (slope * _opposite(z > 0) + (z > 0))


def elu_slope(node: Node, emit: Emitter) -> Value | None:
    """M (scale [z > 0] + α scale b e^(b z) [z <= 0]), b the scale of the input."""
    m, z = emit.value(argument(node, "grad_output")), emit.value(argument(node, "self_or_result"))
    alpha, scale, inner = (float(argument(node, name)) for name in ("alpha", "scale", "input_scale"))
    if argument(node, "is_result"):
        return None
    power = emit.call(aten.exp.default, z.negative * inner) * (alpha * scale * inner)
    return m * (_stored(scale, m) * (z > 0) + power * _opposite(z > 0))


def _opposite(condition: Value) -> Value:
    return condition.emit.call(aten.logical_not.default, condition)


def _stored(number: float, like: Value) -> Value:
    """A number with the data type of `like`, which a product with a condition has then, too."""
    return like.emit.constant("number", torch.full((1,), number, dtype=like.fake.dtype))
