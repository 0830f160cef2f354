"""What operators do to signs: "zero", "positive" (>= 0), "negative" (<= 0), or None for unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from torch.fx import Node

from passes.graphs.emitter import aten
from passes.graphs.facts import Fact
from passes.graphs.nodes import argument, arguments
from passes.operators.activation import Bounds

Sign: TypeAlias = Literal["zero", "positive", "negative"] | None
SIGN: Final = Fact[Sign]("sign")
SignRule: TypeAlias = Callable[[Node], Sign]
"""The sign of an operator's value, from what `sign_of` says of its operands."""
_CLAMPS: Final = (aten.clamp.default, aten.clamp_min.default, aten.hardtanh.default)
_FLIP: dict[Sign, Sign] = {"positive": "negative", "negative": "positive", "zero": "zero", None: None}


def of_tensor(tensor: Any) -> Sign:
    """Sign of a stored tensor."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return None
    low, high = float(tensor.min()), float(tensor.max())
    return "zero" if low == high == 0 else "positive" if low >= 0 else "negative" if high <= 0 else None


def sign_of(value: Any) -> Sign:
    """Sign of an operand: a node (as annotated) or a number."""
    if isinstance(value, Node):
        return SIGN.of(value)
    if isinstance(value, int | float):
        return "zero" if value == 0 else "positive" if value > 0 else "negative"
    return None


def _sum(*signs: Sign) -> Sign:
    known: set[Sign] = {sign for sign in signs if sign != "zero"}
    return "zero" if not known else known.pop() if len(known) == 1 else None


def _times(a: Sign, b: Sign) -> Sign:
    if "zero" in (a, b):
        return "zero"
    if None in (a, b):
        return None
    return "positive" if a == b else "negative"


def same(node: Node) -> Sign:
    """That of the operand."""
    return sign_of(node.args[0])


def positive(_node: Node) -> Sign:
    """Never negative."""
    return "positive"


def relu(node: Node) -> Sign:
    """0 where the operand is known not to be positive."""
    return "zero" if sign_of(node.args[0]) in ("zero", "negative") else "positive"


def clamp(bounds: Bounds, node: Node) -> Sign:
    """Cut to `bounds`."""
    low, high = bounds(node)
    operand = sign_of(node.args[0])
    if (low == 0 and operand in ("negative", "zero")) or (high == 0 and operand in ("positive", "zero")):
        return "zero"
    return "positive" if low >= 0 else "negative" if high <= 0 else operand if low <= 0 <= high else None


def affine(node: Node) -> Sign:
    """W x + b, from the signs of W, x and b."""
    bias = argument(node, "bias")
    return _sum(_times(sign_of(node.args[0]), sign_of(node.args[1])), "zero" if bias is None else sign_of(bias))


def where(node: Node) -> Sign:
    """What both branches have in common."""
    return _sum(sign_of(node.args[1]), sign_of(node.args[2]))


def where_number(node: Node) -> Sign:
    """The same; relu(z) is 0 where z is not positive."""
    condition, value, otherwise = arguments(node)
    if otherwise == 0 and condition.target is aten.lt.Scalar and arguments(condition)[1] == 0:
        return "zero" if vanishes_with(value, arguments(condition)[0]) else sign_of(value)
    return where(node)


def vanishes_with(value: Any, z: Node) -> bool:
    """`value` has relu(z), or a clamp of z from 0 on, as a factor: it is 0 where z is not positive."""
    if not isinstance(value, Node):
        return False
    operands = arguments(value)
    if value.target is aten.mul.Tensor:
        return any(vanishes_with(factor, z) for factor in operands[:2])
    if value.target is aten.div.Tensor:
        return vanishes_with(operands[0], z)
    if value.target is aten.max_pool2d_with_indices_backward.default:  # places of the maxima of its second argument
        return vanishes_with(operands[1], z) and _scales_maximum(operands[0], operands[1])
    if value.target is aten.clamp_max.default and operands[1] >= 0:
        return vanishes_with(operands[0], z)
    return bool(operands) and operands[0] is z and _cuts_at_zero(value)


def _cuts_at_zero(value: Node) -> bool:
    return value.target is aten.relu.default or (value.target in _CLAMPS and argument(value, 1) == 0)


def _scales_maximum(value: Any, x: Node) -> bool:
    """`value` has the maxima of x as a factor."""
    if not isinstance(value, Node) or value.target not in (aten.mul.Tensor, aten.div.Tensor):
        return isinstance(value, Node) and value.target is aten.max_pool2d.default and arguments(value)[0] is x
    factors = arguments(value)[: 2 if value.target is aten.mul.Tensor else 1]
    return any(_scales_maximum(factor, x) for factor in factors)


def cat(node: Node) -> Sign:
    """What all parts have in common."""
    parts: Any = node.args[0]
    return _sum(*map(sign_of, parts))


def pad(node: Node) -> Sign:
    """What the operand and the padding have in common."""
    return _sum(sign_of(node.args[0]), sign_of(argument(node, "value")))


def negated_sum(node: Node) -> Sign:
    """Of a - b."""
    return _sum(sign_of(node.args[0]), _FLIP[sign_of(node.args[1])]) if "alpha" not in node.kwargs else None


def plain_sum(node: Node) -> Sign:
    """Of a + b."""
    return _sum(sign_of(node.args[0]), sign_of(node.args[1])) if "alpha" not in node.kwargs else None


def product(node: Node) -> Sign:
    """Of a b; a square is positive."""
    if node.args[0] is node.args[1]:
        return "positive"
    return _times(sign_of(node.args[0]), sign_of(node.args[1]))


def matrix_product(node: Node) -> Sign:
    """Unlike x * x, x @ x may be negative."""
    return _times(sign_of(node.args[0]), sign_of(node.args[1]))


def quotient(node: Node) -> Sign:
    """Of a / b."""
    divisor = sign_of(node.args[1])
    return None if divisor == "zero" else _times(sign_of(node.args[0]), divisor)


def magnitude(node: Node) -> Sign:
    """|a|."""
    return "zero" if sign_of(node.args[0]) == "zero" else "positive"


def zero(_node: Node) -> Sign:
    """Always 0."""
    return "zero"


def negated(node: Node) -> Sign:
    """-a."""
    return _FLIP[sign_of(node.args[0])]
