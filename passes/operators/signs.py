"""What operators do to signs: "zero", "positive" (>= 0), "negative" (<= 0), or None for unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from torch.fx import GraphModule, Node

from passes.graphs.emitter import aten
from passes.graphs.facts import Fact
from passes.graphs.graph import tensor_of
from passes.graphs.nodes import argument, arguments
from passes.operators.activation import clamp_bounds

Sign: TypeAlias = Literal["zero", "positive", "negative"] | None
SIGN: Final = Fact[Sign]("sign")
_FLIP: dict[Sign, Sign] = {"positive": "negative", "negative": "positive", "zero": "zero", None: None}


def infer(node: Node, module: GraphModule) -> Sign:
    """Sign of the value of `node`, from the signs that were found for its operands."""
    tensor = tensor_of(module, node)
    if tensor is not None:
        return _of_tensor(tensor)
    rule = _RULES.get(node.target) if node.op == "call_function" else None
    return rule(node) if rule else None


def _of_tensor(tensor: Any) -> Sign:
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


def _product(a: Sign, b: Sign) -> Sign:
    if "zero" in (a, b):
        return "zero"
    if None in (a, b):
        return None
    return "positive" if a == b else "negative"


def _same(node: Node) -> Sign:
    return sign_of(node.args[0])


def _positive(_node: Node) -> Sign:
    return "positive"


def _relu(node: Node) -> Sign:
    return "zero" if sign_of(node.args[0]) in ("zero", "negative") else "positive"


def _clamp(node: Node) -> Sign:
    low, high = clamp_bounds(node) or (-1.0, 1.0)
    operand = sign_of(node.args[0])
    if (low == 0 and operand in ("negative", "zero")) or (high == 0 and operand in ("positive", "zero")):
        return "zero"
    return "positive" if low >= 0 else "negative" if high <= 0 else operand if low <= 0 <= high else None


def _affine(node: Node) -> Sign:
    """W x + b, from the signs of W, x and b."""
    bias = argument(node, 2)
    return _sum(_product(sign_of(node.args[0]), sign_of(node.args[1])), "zero" if bias is None else sign_of(bias))


def _where(node: Node) -> Sign:
    return _sum(sign_of(node.args[1]), sign_of(node.args[2]))


def _where_number(node: Node) -> Sign:
    condition, value, otherwise = arguments(node)
    if otherwise == 0 and condition.target is aten.lt.Scalar and arguments(condition)[1] == 0:
        return "zero" if vanishes_with(value, arguments(condition)[0]) else sign_of(value)
    return _where(node)


def vanishes_with(value: Any, z: Node) -> bool:
    """`value` is a product with relu(z): it is 0 where z is not positive."""
    if not isinstance(value, Node) or value.target is not aten.mul.Tensor:
        return False
    factors = [a for a in arguments(value) if isinstance(a, Node) and a.target is aten.relu.default]
    return any(arguments(factor)[0] is z for factor in factors)


def _cat(node: Node) -> Sign:
    parts: Any = node.args[0]
    return _sum(*map(sign_of, parts))


def _pad(node: Node) -> Sign:
    return _sum(sign_of(node.args[0]), sign_of(argument(node, 2)))


def _negated_sum(node: Node) -> Sign:
    return _sum(sign_of(node.args[0]), _FLIP[sign_of(node.args[1])]) if "alpha" not in node.kwargs else None


def _plain_sum(node: Node) -> Sign:
    return _sum(sign_of(node.args[0]), sign_of(node.args[1])) if "alpha" not in node.kwargs else None


def _mul(node: Node) -> Sign:
    if node.args[0] is node.args[1]:
        return "positive"
    return _product(sign_of(node.args[0]), sign_of(node.args[1]))


def _matrix_product(node: Node) -> Sign:
    """Unlike x * x, x @ x may be negative."""
    return _product(sign_of(node.args[0]), sign_of(node.args[1]))


def _div(node: Node) -> Sign:
    divisor = sign_of(node.args[1])
    return None if divisor == "zero" else _product(sign_of(node.args[0]), divisor)


def _magnitude(node: Node) -> Sign:
    return "zero" if sign_of(node.args[0]) == "zero" else "positive"


def _zero(_node: Node) -> Sign:
    return "zero"


_KEEP_SIGN: tuple[Any, ...] = (
    aten.amax.default,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
    aten.clone.default,
    aten.expand.default,
    aten.flip.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.mean.dim,
    aten.permute.default,
    aten.repeat.default,
    aten.reshape.default,
    aten.roll.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.squeeze.dims,
    aten.sum.dim_IntList,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.view.default,
    aten._adaptive_avg_pool2d.default,
)

_RULES: dict[Any, Callable[[Node], Sign]] = {
    **dict.fromkeys(_KEEP_SIGN, _same),
    aten.relu.default: _relu,
    aten.abs.default: _magnitude,
    aten.sign.default: _same,
    aten.exp.default: _positive,
    aten.sigmoid.default: _positive,
    aten.hardsigmoid.default: _positive,
    aten.softplus.default: _positive,
    aten.softmax.int: _positive,
    aten.ones_like.default: _positive,
    aten.zeros_like.default: _zero,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp,
    aten.hardtanh.default: _clamp,
    aten.convolution.default: _affine,
    aten.linear.default: _affine,
    aten.matmul.default: _matrix_product,
    aten.add.Tensor: _plain_sum,
    aten.sub.Tensor: _negated_sum,
    aten.mul.Tensor: _mul,
    aten.div.Tensor: _div,
    aten.neg.default: lambda node: _FLIP[sign_of(node.args[0])],
    aten.where.self: _where,
    aten.where.ScalarOther: _where_number,
    aten.cat.default: _cat,
    aten.constant_pad_nd.default: _pad,
}
