"""Products, extremes and sums of exponentials along an axis, and products by a tensor -> the same of two values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite
from passes.graphs.nodes import argument


def _product(node: Node, emit: Emitter) -> Value | None:
    """Π x along an axis: a tree of products of two, log2(n) deep."""
    x = emit.value(argument(node, "self"))
    dim = argument(node, "dim") % max(x.ndim, 1)
    if argument(node, "dtype") is not None or not _has_length(x, dim):
        return None
    while (size := x.shape[dim]) > 1:
        half = size // 2
        pairs = x.slice(dim, 0, half) * x.slice(dim, half, 2 * half)
        x = emit.call(aten.cat.default, [pairs, x.slice(dim, 2 * half, size)], dim) if size % 2 else pairs
    return x if argument(node, "keepdim") else emit.call(aten.squeeze.dims, x, [dim])


def _cumulative_product(node: Node, emit: Emitter) -> Value | None:
    return None if argument(node, "dtype") is not None else scanned(node, Value.__mul__, emit)


def scanned(node: Node, both: Callable[[Value, Value], Value], emit: Emitter) -> Value | None:
    """`y_i = both(x_0, ..., x_i)` along an axis, of an associative function of two values, in log2(n) steps."""
    x = emit.value(argument(node, "self"))
    dim = argument(node, "dim") % max(x.ndim, 1)
    if not _has_length(x, dim):
        return None
    size, reach = x.shape[dim], 1
    while reach < size:
        later = both(x.slice(dim, 0, size - reach), x.slice(dim, reach, size))
        x = emit.call(aten.cat.default, [x.slice(dim, 0, reach), later], dim)
        reach *= 2
    return x


def _log_of_sums(node: Node, emit: Emitter) -> Value | None:
    """`y_i = log Σ_{j <= i} exp x_j`, whose sums are never larger than the largest of their terms."""
    return scanned(node, _log_of_sum, emit)


def _log_of_sum(a: Value, b: Value) -> Value:
    """log(exp a + exp b)."""
    below = a.emit.call(aten.exp.default, -(a - b).magnitude)
    return a.emit.call(aten.maximum.default, a, b) + a.emit.call(aten.log1p.default, below)


def _larger(a: Value, b: Value) -> Value:
    return a.where(a.emit.call(aten.gt.Tensor, a, b), b)


def _smaller(a: Value, b: Value) -> Value:
    return a.where(a.emit.call(aten.lt.Tensor, a, b), b)


def _has_length(x: Value, dim: int) -> bool:
    """An axis of known length that is not empty, and not the batch."""
    return x.ndim > 0 and isinstance(x.shape[dim], int) and x.shape[dim] > 0


def _bilinear(node: Node, emit: Emitter) -> Value:
    """`y_o = Σ_ij a_i W_oij b_j + c_o`: a linear map of a, and a sum of its products with b."""
    a, b, weight = (emit.value(argument(node, name)) for name in ("input1", "input2", "weight"))
    outputs, left, right = weight.shape
    rows = weight.permute([0, 2, 1]).reshape([outputs * right, left])
    mapped = emit.call(aten.linear.default, a, rows).reshape([*a.shape[:-1], outputs, right])
    y = (mapped * emit.call(aten.unsqueeze.default, b, b.ndim - 1)).sum([mapped.ndim - 1])
    bias = argument(node, "bias")
    return y if bias is None else y + emit.value(bias)


PRODUCTS: Final[dict[Any, Rewrite]] = {
    aten.prod.dim_int: _product,
    aten.cumprod.default: _cumulative_product,
    aten.logcumsumexp.default: _log_of_sums,
    aten.bilinear.default: _bilinear,
}
# Of equal ones the last is chosen, as torch does.
EXTREMES: Final[dict[Any, Callable[[Value, Value], Value]]] = {
    aten.cummax.default: _larger,
    aten.cummin.default: _smaller,
}
