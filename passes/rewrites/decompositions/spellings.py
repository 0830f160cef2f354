"""Operators that are others in another spelling: windows, distances, other logarithms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite, is_constant, tensor_of
from passes.graphs.nodes import argument, arguments, map_nodes, run_node


def _scaled(target: Any, *, before: float = 1.0, after: float = 1.0) -> Rewrite:
    """F(z) = after target(before z)."""

    def rewrite(node: Node, emit: Emitter) -> Value:
        z = emit.value(arguments(node)[0])
        y = emit.call(target, z if before == 1.0 else z * before)
        return y if after == 1.0 else y * after

    return rewrite


def _with_tensor(target: Any) -> Rewrite:
    """Arithmetic with a number, under the name that it has with a tensor."""
    return lambda node, emit: emit.call(target, *node.args, **node.kwargs)


def _power_of_a_number(node: Node, emit: Emitter) -> Value | None:
    base = argument(node, "self")
    return emit.call(aten.exp.default, emit.value(argument(node, "exponent")) * math.log(base)) if base > 0 else None


def _power_of_a_tensor(node: Node, emit: Emitter) -> Value | None:
    """One number that is stored, or computed from stored ones, is a number: the p of a generalised mean."""
    x, exponent = emit.value(argument(node, "self")), argument(node, "exponent")
    shape, broadcast = exponent.meta["val"].shape, node.meta["val"].shape
    if len(shape) <= x.ndim and math.prod(shape) == 1 and is_constant(exponent):
        return emit.call(aten.pow.Tensor_Scalar, x, float(stored(exponent, emit.module)))
    if str(x.fake.shape) == str(broadcast):
        return None
    return emit.call(aten.pow.Tensor_Tensor, x + emit.value(exponent).zeros(), exponent)


def stored(node: Node, module: GraphModule) -> Any:
    """The value of a node that depends on stored tensors only."""
    tensor = tensor_of(module, node)
    if tensor is not None:
        return tensor.detach()
    args, kwargs = map_nodes((node.args, node.kwargs), lambda operand: stored(operand, module))
    return run_node(node, args, kwargs)


def _rest(rounded: Any) -> Rewrite:
    """What is left of z over whole divisors n: z - n rounded(z / n)."""

    def rewrite(node: Node, emit: Emitter) -> Value | None:
        z, divisor = emit.value(argument(node, 0)), argument(node, 1)
        if not z.fake.is_floating_point():
            return None
        return z - emit.call(rounded, z / divisor) * divisor

    return rewrite


def _unrounded(node: Node, emit: Emitter) -> Value | None:
    return emit.call(aten.div.Tensor, *node.args) if argument(node, "rounding_mode") is None else None


def _first_unless(beaten: Any) -> Rewrite:
    """Of two values the first, unless the other wins: fmax and fmin, which take a number before what is none."""

    def rewrite(node: Node, emit: Emitter) -> Value:
        a, b = map(emit.value, arguments(node))
        kept = emit.call(aten.logical_or.default, emit.call(beaten, a, b), emit.call(aten.isnan.default, b))
        return a.where(kept, b)

    return rewrite


def _times_log(log: Any, pole: float) -> Callable[[Value, Value], Value]:
    """A log(b), or a log(1 + b); where a is 0 so is the product, at the pole of the logarithm too."""

    def product(a: Value, b: Value) -> Value:
        beyond = a.emit.call(aten.logical_and.default, a.equals(0.0), -b >= -pole)
        return a * a.emit.call(log, b.ones().where(beyond, b))

    return product


def _entropy(node: Node, emit: Emitter) -> Value:
    z = emit.value(argument(node, 0))
    return -_times_log(aten.log.default, 0.0)(z, z)


def _cardinal_sine(node: Node, emit: Emitter) -> Value:
    """sin(πz) / (πz), 1 at 0."""
    z = emit.value(argument(node, 0)) * math.pi
    beside = z.differs(0.0)
    turned = z.where(beside, 1.0)
    return (emit.call(aten.sin.default, turned) / turned).where(beside, 1.0)


def _clamp_between_tensors(node: Node, emit: Emitter) -> Value:
    z: Any = arguments(node)[0]
    for target, bound in ((aten.maximum.default, argument(node, "min")), (aten.minimum.default, argument(node, "max"))):
        z = z if bound is None else emit.call(target, z, bound)
    return z


def _of_two(function: Callable[[Value, Value], Value]) -> Rewrite:
    return lambda node, emit: function(*map(emit.value, arguments(node)))


def hypotenuse(a: Value, b: Value) -> Value:
    """sqrt(a² + b²); where it is 0, so is its gradient."""
    return _root(a * a + b * b)


def angle_of(y: Value, x: Value) -> Value:
    """atan2(y, x): the arc tangent of the smaller over the larger of the two, and what turns it into its octant.

    Where both are 0, so is its gradient; -0 counts as 0.
    """
    steep = y.emit.call(aten.gt.Tensor, y.magnitude, x.magnitude)
    larger, smaller = y.where(steep, x), (-x).where(steep, y)
    somewhere = larger.differs(0.0)
    angle = y.emit.call(aten.atan.default, smaller / larger.where(somewhere, 1.0)).where(somewhere, 0.0)
    turned = (y.ones() * (math.pi / 2)).where(steep, (x.ones() * math.pi).where(x < 0.0, 0.0))
    return angle + turned * y.ones().where(y >= 0.0, -1.0)


def _distances(node: Node, emit: Emitter) -> Value | None:
    """Distances of all pairs of rows, (..., P, R), from (..., P, M) and (..., R, M)."""
    a, b = (emit.value(argument(node, name)) for name in ("x1", "x2"))
    apart = emit.call(aten.unsqueeze.default, a, a.ndim - 1) - emit.call(aten.unsqueeze.default, b, b.ndim - 2)
    p, along = float(argument(node, "p")), [apart.ndim - 1]
    if p == 2:
        return _root((apart * apart).sum(along))
    if p == math.inf:
        return emit.call(aten.amax.default, apart.magnitude, along)
    if p == 1:
        return apart.magnitude.sum(along)
    return None


def _root(square: Value) -> Value:
    """Its square root; at 0, where the slope is infinite, the gradient is 0, as torch has it for norms."""
    inside = square > 0.0
    return square.emit.call(aten.sqrt.default, square.where(inside, 1.0)).where(inside, 0.0)


def _circular_padding(node: Node, emit: Emitter) -> Value | None:
    x, amounts = emit.value(argument(node, 0)), argument(node, "pad")
    if min(amounts) < 0:
        return None
    for axis, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        dim = x.ndim - 1 - axis
        size = x.shape[dim]
        parts = [x.slice(dim, size - before, size)] if before else []
        parts += [x, *([x.slice(dim, 0, after)] if after else [])]
        x = emit.call(aten.cat.default, parts, dim) if len(parts) > 1 else x
    return x


def windows(x: Value, dim: int, size: int, step: int, dilation: int = 1) -> Value:
    """All windows along an axis: it becomes their number, and their elements are the last axis."""
    starts = torch.arange(0, x.shape[dim] - dilation * (size - 1), step)
    return chosen_windows(x, dim, starts[:, None] + dilation * torch.arange(size))


def chosen_windows(x: Value, dim: int, places: torch.Tensor) -> Value:
    """The windows along an axis whose elements lie at `places`, a row each; as in `windows`."""
    taken = x.emit.call(aten.index_select.default, x, dim, x.emit.constant("windows", places.reshape(-1)))
    apart = taken.reshape([*x.shape[:dim], *places.shape, *x.shape[dim + 1 :]])
    return apart.permute([d for d in range(apart.ndim) if d != dim + 1] + [dim + 1])


def _unfold(node: Node, emit: Emitter) -> Value | None:
    x = emit.value(argument(node, 0))
    dim = argument(node, "dimension") % x.ndim
    return windows(x, dim, argument(node, "size"), argument(node, "step")) if isinstance(x.shape[dim], int) else None


def _patches(node: Node, emit: Emitter) -> Value | None:
    """im2col: (N, C, H, W) -> (N, C kernel elements, windows)."""
    x = emit.value(argument(node, 0))
    kernel, dilation, padding, stride = (argument(node, k) for k in ("kernel_size", "dilation", "padding", "stride"))
    if x.ndim != 4:
        return None
    x = x.pad([padding[1], padding[1], padding[0], padding[0]])
    for axis in range(2):
        x = windows(x, 2 + axis, kernel[axis], stride[axis], dilation[axis])
    n, channels, rows, columns = x.shape[:4]
    return x.permute([0, 1, 4, 5, 2, 3]).reshape([n, channels * kernel[0] * kernel[1], rows * columns])


def _diagonal(node: Node, emit: Emitter) -> Value | None:
    x, offset = emit.value(argument(node, 0)), argument(node, "offset")
    dims = [argument(node, name) % x.ndim for name in ("dim1", "dim2")]
    rows, columns = (x.shape[dim] for dim in dims)
    if not isinstance(rows, int) or not isinstance(columns, int):
        return None
    others = [dim for dim in range(x.ndim) if dim not in dims]
    places = [row * columns + row + offset for row in range(rows) if 0 <= row + offset < columns]
    flat = x.permute([*others, *dims]).reshape([*(x.shape[dim] for dim in others), rows * columns])
    return emit.call(aten.index_select.default, flat, len(others), emit.constant("diagonal", torch.tensor(places)))


SPELLINGS: dict[Any, Rewrite] = {
    aten.add.Scalar: _with_tensor(aten.add.Tensor),
    aten.sub.Scalar: _with_tensor(aten.sub.Tensor),
    aten.mul.Scalar: _with_tensor(aten.mul.Tensor),
    aten.div.Scalar: _with_tensor(aten.div.Tensor),
    aten.div.Tensor_mode: _unrounded,
    aten._neg_view.default: _with_tensor(aten.neg.default),
    aten.exp2.default: _scaled(aten.exp.default, before=math.log(2.0)),
    aten.log2.default: _scaled(aten.log.default, after=1 / math.log(2.0)),
    aten.log10.default: _scaled(aten.log.default, after=1 / math.log(10.0)),
    aten.pow.Scalar: _power_of_a_number,
    aten.pow.Tensor_Tensor: _power_of_a_tensor,
    aten.fmod.Scalar: _rest(aten.trunc.default),
    aten.fmod.Tensor: _rest(aten.trunc.default),
    aten.remainder.Scalar: _rest(aten.floor.default),
    aten.remainder.Tensor: _rest(aten.floor.default),
    aten.fmax.default: _first_unless(aten.ge.Tensor),
    aten.fmin.default: _first_unless(aten.le.Tensor),
    aten.xlogy.Tensor: _of_two(_times_log(aten.log.default, 0.0)),
    aten.special_xlog1py.default: _of_two(_times_log(aten.log1p.default, -1.0)),
    aten.special_entr.default: _entropy,
    aten.sinc.default: _cardinal_sine,
    aten.clamp.Tensor: _clamp_between_tensors,
    aten.clip.Tensor: _clamp_between_tensors,
    aten.atan2.default: _of_two(angle_of),
    aten.hypot.default: _of_two(hypotenuse),
    aten.cdist.default: _distances,
    aten._pad_circular.default: _circular_padding,
    aten.unfold.default: _unfold,
    aten.im2col.default: _patches,
    aten.diagonal.default: _diagonal,
}
