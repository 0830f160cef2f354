"""Algebra on the explainer graph: smaller expressions for the same numbers.

Relies on the signs of values. Numbers may change by rounding only. In the order of the table:

1. clamp_min(x, 0), x >= 0 -> x            and clamp_max(x, 0), x <= 0 -> x, and |x|, x >= 0 -> x
2. x + 0 -> x,  x - 0 -> x                 0 is any value that is known to be zero, so its computation dies
3. where(x >= 0, a, b), x >= 0 -> a
4. where(y > 0, m, 0) y -> m y             the mask of a ReLU before a product with its output
5. ones(x) y -> y,  y / 1 -> y
6. (m y) / ⟨z⟩ε, y = 0 where z <= 0 -> (m y) / (relu(z) + ε)      y = relu(z), relu6(z), ...
   and then relu6(z) -> min(relu(z), 6)                   z itself is read no longer
   (m z) / ⟨z⟩ε -> m (|z| / (|z| + ε))                    ⟨z⟩ε = where(z >= 0, z + ε, z - ε)
7. W x + c with a number c -> W x + b, b = c           and (W x + v) + c -> (W x + b) + v
8. where(z > 0, R, 0) with R = m relu(z) -> R           and the same with z < 0 is known to be 0
   where(z > 0, m z, 0) -> m relu(z)                    and with z < 0 -> m min(z, 0)
9. x unpool(m) -> unpool(p m) and unpool(p m) / ⟨z⟩ε -> unpool(p m / (p + ε)), x = relu(z), p the window's maximum
   (unpool is the adjoint of p = max_pool(x): what it writes to an element, the element equals)
10. x where(x >= 0, a, b) -> x⁺ a + x⁻ b                 a choice costs 20 products on ONNX Runtime's CPU provider
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias, final

import torch
from torch.fx import GraphModule, Node

from passes.graphs.anchors import is_read_once
from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import erase_unused, replace
from passes.graphs.nodes import argument, arguments
from passes.operators.affine import AffineCall, ConvolutionCall
from passes.operators.pooling import MaxWindow
from passes.operators.signs import SIGN, sign_of, vanishes_with
from passes.operators.table import infer_sign, is_a
from passes.rewrites.optimise.choices import stabilised

Simplification: TypeAlias = Callable[[Node, Emitter], "Value | Node | None"]


@final
class Simplify:
    """Apply the table until nothing changes."""

    name: ClassVar[str] = "simplify"

    def apply(self, module: GraphModule, /) -> int:
        emit, count = Emitter(module), 0
        while rewrites := _sweep(module, emit):
            count += rewrites
        SIGN.forget(module.graph)
        return count


def _sweep(module: GraphModule, emit: Emitter) -> int:
    count = 0
    for node in list(module.graph.nodes):
        SIGN.note(node, infer_sign(node, module))
        if node.op != "call_function" or not node.users:
            continue
        with emit.inserting_before(node):
            result = next((r for rule in _TABLE.get(node.target, ()) if (r := rule(node, emit)) is not None), None)
        if result is not None:
            _note_unknown(node.prev)
            replace(node, result)
            count += 1
    if count:
        erase_unused(module)
    return count


def _note_unknown(node: Node) -> None:
    """The next sweep infers the signs of what was just written: `node`, and what stands before it."""
    while SIGN.is_absent(node):
        SIGN.note(node, None)
        node = node.prev


def _clamp_of_known_sign(node: Node, _emit: Emitter) -> Node | None:
    operand: Any = arguments(node)[0]
    keeps = "positive" if node.target is aten.clamp_min.default else "negative"
    return operand if arguments(node)[1] == 0 and sign_of(operand) in (keeps, "zero") else None


def _clamp_beside_relu(node: Node, emit: Emitter) -> Value | None:
    z: Any = arguments(node)[0]
    low, high = argument(node, 1), argument(node, 2)
    if low != 0 or not isinstance(high, int | float) or high < 0:
        return None
    if all(reader.target is not aten.relu.default for reader in z.users):
        return None
    return emit.call(aten.clamp_max.default, emit.call(aten.relu.default, z), high)


def _magnitude_of_positive(node: Node, _emit: Emitter) -> Node | None:
    operand: Any = arguments(node)[0]
    return operand if sign_of(operand) in ("positive", "zero") else None


def _plus_zero(node: Node, _emit: Emitter) -> Node | None:
    for zero, other in (arguments(node)[:2], arguments(node)[1::-1]):
        if sign_of(zero) == "zero" and _like(other, node):
            return other
    return None


def _minus_zero(node: Node, _emit: Emitter) -> Node | None:
    a, b = arguments(node)[:2]
    return a if sign_of(b) == "zero" and _like(a, node) else None


def _where_of_known_sign(node: Node, _emit: Emitter) -> Node | None:
    condition, then, _ = arguments(node)
    if not isinstance(condition, Node) or condition.target is not aten.ge.Scalar or arguments(condition)[1] != 0:
        return None
    return then if sign_of(arguments(condition)[0]) in ("positive", "zero") else None


def _masked_product(node: Node, emit: Emitter) -> Value | None:
    for masked, value in (arguments(node)[:2], arguments(node)[1::-1]):
        if not isinstance(masked, Node) or masked.target is not aten.where.ScalarOther:
            continue
        condition, m, otherwise = arguments(masked)
        is_relu = isinstance(value, Node) and value.target is aten.relu.default
        if is_relu and otherwise == 0 and _tests_positive(condition, value):
            return emit.call(aten.mul.Tensor, m, value)
    return None


def _product_with_choice(node: Node, emit: Emitter) -> Value | None:
    for choice, x in (arguments(node)[:2], arguments(node)[1::-1]):
        if not isinstance(choice, Node) or choice.target is not aten.where.self or not is_read_once(choice):
            continue
        condition, a, b = arguments(choice)
        if condition.target is aten.ge.Scalar and arguments(condition) == (x, 0) and _like(a, node) and _like(b, node):
            value = emit.value(x)
            return value.positive * emit.value(a) + value.negative * emit.value(b)
    return None


def _tests_positive(condition: Any, value: Any) -> bool:
    return isinstance(condition, Node) and condition.target is aten.gt.Scalar and arguments(condition) == (value, 0)


def _times_ones(node: Node, _emit: Emitter) -> Node | None:
    for ones, value in (arguments(node)[:2], arguments(node)[1::-1]):
        if isinstance(ones, Node) and ones.target is aten.ones_like.default and _like(value, node):
            return value
        if isinstance(ones, int | float) and ones == 1:
            return value
    return None


def _over_stabilised(node: Node, emit: Emitter) -> Value | None:
    """A quotient whose denominator is ⟨z⟩ε and whose numerator has z, or z cut at 0, as a factor."""
    numerator, denominator = arguments(node)[:2]
    z, epsilon = stabilised(denominator)
    if z is None or not isinstance(numerator, Node) or numerator.target is not aten.mul.Tensor:
        return None
    if vanishes_with(numerator, z):
        return emit.value(numerator) / (emit.call(aten.relu.default, z) + epsilon)
    for y, m in (arguments(numerator)[:2], arguments(numerator)[1::-1]):
        if y is z and isinstance(m, Node):
            magnitude = emit.value(z).magnitude
            return emit.value(m) * (magnitude / (magnitude + epsilon))
    return None


def _masked_by_itself(node: Node, _emit: Emitter) -> Node | None:
    condition, value, otherwise = arguments(node)
    if otherwise != 0 or condition.target is not aten.gt.Scalar or arguments(condition)[1] != 0:
        return None
    return value if vanishes_with(value, arguments(condition)[0]) else None


def _product_cut_at_zero(node: Node, emit: Emitter) -> Value | None:
    condition, product, otherwise = arguments(node)
    if otherwise != 0 or condition.target not in (aten.gt.Scalar, aten.lt.Scalar) or arguments(condition)[1] != 0:
        return None
    if not isinstance(product, Node) or product.target is not aten.mul.Tensor:
        return None
    for z, m in (arguments(product)[:2], arguments(product)[1::-1]):
        if z is arguments(condition)[0] and _like(z, node) and isinstance(m, Node):
            value, cut_below = emit.value(z), condition.target is aten.gt.Scalar
            return emit.value(m) * (emit.call(aten.relu.default, value) if cut_below else value.negative)
    return None


def _times_unpooled(node: Node, emit: Emitter) -> Value | None:
    for unpooled, x in (arguments(node)[:2], arguments(node)[1::-1]):
        if _is_unpooling(unpooled) and arguments(unpooled)[1] is x:
            m, p = emit.value(arguments(unpooled)[0]), _maximum(unpooled, emit)
            return _unpooled_again(unpooled, p * m, emit)
    return None


def _unpooled_quotient(node: Node, emit: Emitter) -> Value | None:
    """The divisor is ⟨z⟩ε with x = relu(z): the numerator is 0 where z <= 0."""
    unpooled, divisor = arguments(node)[:2]
    z, epsilon = stabilised(divisor)
    if z is None or isinstance(epsilon, Node) or not _is_unpooling(unpooled):
        return None
    x = arguments(unpooled)[1]
    if x.target is not aten.relu.default or arguments(x)[0] is not z:
        return None
    m, p = emit.value(arguments(unpooled)[0]), _maximum(unpooled, emit)
    return _unpooled_again(unpooled, m / (p + epsilon), emit)


def _is_unpooling(node: Any) -> bool:
    return isinstance(node, Node) and node.target is aten.max_pool2d_with_indices_backward.default


def _maximum(unpooling: Node, emit: Emitter) -> Value:
    value = emit.call(aten.max_pool2d.default, argument(unpooling, "self"), *MaxWindow.of(unpooling))
    SIGN.note(value.node, infer_sign(value.node, emit.module))
    return value


def _unpooled_again(unpooling: Node, m: Value, emit: Emitter) -> Value:
    return emit.call(unpooling.target, m, *arguments(unpooling)[1:])


def _number_into_bias(node: Node, emit: Emitter) -> Value | None:
    value, number = arguments(node)[:2]
    if not isinstance(value, Node) or not isinstance(number, int | float) or not is_read_once(value):
        return None
    if _takes_a_bias(value):
        return _with_bias(value, number, emit)
    if value.target is not aten.add.Tensor or value.kwargs:
        return None
    for affine, other in (arguments(value)[:2], arguments(value)[1::-1]):
        if isinstance(affine, Node) and isinstance(other, Node) and is_read_once(affine) and _takes_a_bias(affine):
            return _with_bias(affine, number, emit) + emit.value(other)
    return None


def _takes_a_bias(affine: Node) -> bool:
    """A convolution or a linear map without one."""
    return is_a(affine, AffineCall) and argument(affine, "bias") is None


def _with_bias(affine: Node, number: float, emit: Emitter) -> Value:
    shape, axis = affine.meta["val"].shape, 1 if is_a(affine, ConvolutionCall) else -1
    bias = emit.constant("epsilon", torch.full((int(shape[axis]),), number, dtype=affine.meta["val"].dtype))
    SIGN.note(bias.node, infer_sign(bias.node, emit.module))
    return emit.call(affine.target, arguments(affine)[0], arguments(affine)[1], bias, *arguments(affine)[3:])


def _like(value: Any, node: Node) -> bool:
    """`value` can stand for `node`: a tensor of its shape and dtype."""
    if not isinstance(value, Node):
        return False
    a, b = value.meta["val"], node.meta["val"]
    return str(a.shape) == str(b.shape) and a.dtype == b.dtype


_TABLE: dict[Any, tuple[Simplification, ...]] = {
    aten.clamp_min.default: (_clamp_of_known_sign,),
    aten.clamp_max.default: (_clamp_of_known_sign,),
    aten.clamp.default: (_clamp_beside_relu,),
    aten.hardtanh.default: (_clamp_beside_relu,),
    aten.abs.default: (_magnitude_of_positive,),
    aten.add.Tensor: (_plus_zero, _number_into_bias),
    aten.sub.Tensor: (_minus_zero,),
    aten.where.self: (_where_of_known_sign,),
    aten.where.ScalarOther: (_masked_by_itself, _product_cut_at_zero),
    aten.mul.Tensor: (_masked_product, _times_ones, _times_unpooled, _product_with_choice),
    aten.div.Tensor: (_over_stabilised, _unpooled_quotient),
}
