"""Assignments to parts of a value -> concatenations, selections by a mask, and the operators that write by an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite
from passes.graphs.nodes import argument


def _assigned_slice(node: Node, emit: Emitter) -> Value | None:
    x, values, dim = emit.value(argument(node, 0)), emit.value(argument(node, 1)), argument(node, "dim")
    dim %= x.ndim
    size, bounds = x.shape[dim], [argument(node, name) for name in ("start", "end", "step")]
    if not isinstance(size, int):
        return values if str(x.shape) == str(values.shape) else None
    start, end, step = slice(*bounds).indices(size)
    if step == 1:
        return _replaced(x, dim, start, end, values)
    return _at_rows(x, dim, emit.constant("places", torch.arange(start, end, step)), values)


def _assigned_place(node: Node, emit: Emitter) -> Value | None:
    x, dim = emit.value(argument(node, 0)), argument(node, "dim")
    dim %= x.ndim
    if not isinstance(x.shape[dim], int):
        return None
    place = argument(node, "index") % x.shape[dim]
    values = emit.call(aten.unsqueeze.default, argument(node, 1), dim)
    return _replaced(x, dim, place, place + 1, values)


def _replaced(x: Value, dim: int, start: int, end: int, values: Value) -> Value:
    size = x.shape[dim]
    parts: Sequence[Value | None] = (
        x.slice(dim, 0, start) if start else None,
        values,
        x.slice(dim, end, size) if end < size else None,
    )
    present = [part for part in parts if part is not None]
    return x.emit.call(aten.cat.default, present, dim) if len(present) > 1 else values


def _copied(node: Node, emit: Emitter) -> Value | None:
    """What is assigned takes the place of the whole, at its shape."""
    x, values = emit.value(argument(node, 0)), emit.value(argument(node, 1))
    if x.fake.dtype != values.fake.dtype:
        return None
    return values if str(x.shape) == str(values.shape) else emit.call(aten.expand.default, values, x.sizes())


def _assigned_rows(node: Node, emit: Emitter) -> Value | None:
    """index_copy: rows of one axis."""
    x, values = emit.value(argument(node, "self")), emit.value(argument(node, "source"))
    return _at_rows(x, argument(node, "dim") % x.ndim, emit.value(argument(node, "index")), values)


def _assigned_elements(node: Node, emit: Emitter) -> Value | None:
    """index_put by one index: a mask, or a list of positions along one axis."""
    x, values = emit.value(argument(node, "self")), emit.value(argument(node, "values"))
    given = [(dim, emit.value(index)) for dim, index in enumerate(argument(node, "indices")) if index is not None]
    (dim, index), adds = given[0], argument(node, "accumulate")
    if len(given) == 1 and index.fake.dtype == torch.bool:
        return _masked(x, index, values) if dim == 0 and not adds else None
    if len(given) > 1 or index.ndim != 1 or emit.is_of_batch(x.shape[dim]):
        return None
    places = emit.call(aten.remainder.Scalar, index, x.shape[dim])
    sizes = x.sizes()
    sizes[dim] = index.shape[0]
    rows = emit.call(aten.expand.default, values, sizes)
    return emit.call(aten.index_add.default, x, dim, places, rows) if adds else _at_rows(x, dim, places, rows)


def _masked(x: Value, mask: Value, values: Value) -> Value | None:
    """One value at the places of a mask, or another value's elements at the same places."""
    source = values.node
    if source.target is aten.index.Tensor and list(argument(source, "indices")) == [mask.node]:
        values = x.emit.value(argument(source, "self"))
        if str(values.shape) != str(x.shape):
            return None
    elif values.ndim:
        return None
    return x.emit.call(aten.where.self, mask.reshape([*mask.shape, *[1] * (x.ndim - mask.ndim)]), values, x)


def _at_rows(x: Value, dim: int, index: Value, values: Value) -> Value | None:
    """`x[:, index] = values`, by one position for each element."""
    if x.emit.is_of_batch(x.shape[dim]):
        return None
    shape = [1] * x.ndim
    shape[dim] = -1
    places = x.emit.call(aten.expand.default, index.reshape(shape), values.sizes())
    return x.emit.call(aten.scatter.src, x, dim, places, values)


def _scaled_rows(node: Node, emit: Emitter) -> Value | None:
    """index_add with a factor."""
    x, index, rows, dim = (argument(node, name) for name in ("self", "index", "source", "dim"))
    factor = argument(node, "alpha")
    return None if factor == 1 else emit.call(aten.index_add.default, x, dim, index, emit.value(rows) * factor)


def _reduced(node: Node, emit: Emitter) -> Value | None:
    """scatter_reduce: a sum, or a mean; of maxima the operator knows itself."""
    x, dim, index, source = (argument(node, name) for name in ("self", "dim", "index", "src"))
    how = argument(node, "reduce")
    if how not in ("sum", "mean"):
        return None

    def summed(base: Value, written: Any) -> Value:
        base = base if argument(node, "include_self") else emit.call(aten.scatter.value, base, dim, index, 0.0)
        return emit.call(aten.scatter_add.default, base, dim, index, written)

    total = summed(emit.value(x), source)
    if how == "sum":
        return total
    count = summed(emit.value(x).ones(), emit.value(source).ones())
    return total / emit.call(aten.clamp_min.default, count, 1)


def _folded(node: Node, emit: Emitter) -> Value | None:
    """col2im: (N, C kernel elements, windows) -> (N, C, H, W), the windows added up where they lie."""
    x = emit.value(argument(node, "self"))
    sides, kernel, dilation, padding, stride = (
        argument(node, name) for name in ("output_size", "kernel_size", "dilation", "padding", "stride")
    )
    if x.ndim != 3:
        return None
    height, width = (side + 2 * pad for side, pad in zip(sides, padding, strict=True))
    rows, columns = (
        torch.arange(k)[:, None] * d + torch.arange(0, side - d * (k - 1), st)
        for side, k, d, st in zip((height, width), kernel, dilation, stride, strict=True)
    )
    places = rows[:, None, :, None] * width + columns[None, :, None, :]  # kernel rows and columns, then windows
    elements = x.reshape([x.shape[0], x.shape[1] // (kernel[0] * kernel[1]), places.numel()])
    sums = zeros_like(elements, height * width)
    total = emit.call(aten.index_add.default, sums, 2, emit.constant("places", places.reshape(-1)), elements)
    image = total.reshape([*elements.shape[:2], height, width])
    return image.pad([-padding[1], -padding[1], -padding[0], -padding[0]])


def _added_windows(node: Node, emit: Emitter) -> Value | None:
    """unfold_backward: windows along an axis, their elements the last one, added up where they lie."""
    x, dim, size, step = emit.value(argument(node, 0)), *(argument(node, name) for name in ("dim", "size", "step"))
    dim %= x.ndim - 1
    if not isinstance(x.shape[dim], int):
        return None
    places = torch.arange(x.shape[dim])[:, None] * step + torch.arange(size)
    rows = x.permute([*range(dim + 1), x.ndim - 1, *range(dim + 1, x.ndim - 1)])
    rows = rows.reshape([*x.shape[:dim], places.numel(), *x.shape[dim + 1 : -1]])
    sizes = rows.sizes()
    sizes[dim] = node.meta["val"].shape[dim]
    sums = emit.call(aten.full.default, sizes, 0.0, dtype=x.fake.dtype)
    total = emit.call(aten.index_add.default, sums, dim, emit.constant("places", places.reshape(-1)), rows)
    return emit.call(aten.expand.default, total, argument(node, "input_sizes"))


def zeros_like(like: Value, size: int) -> Value:
    """Zeros, as many along the last axis."""
    return like.emit.call(aten.full.default, [*like.sizes()[:-1], size], 0.0, dtype=like.fake.dtype)


ASSIGNMENTS: Final[dict[Any, Rewrite]] = {
    aten.slice_scatter.default: _assigned_slice,
    aten.select_scatter.default: _assigned_place,
    aten.copy.default: _copied,
    aten.index_add.default: _scaled_rows,
    aten.index_copy.default: _assigned_rows,
    aten.index_put.default: _assigned_elements,
    aten.scatter_reduce.two: _reduced,
    aten.col2im.default: _folded,
    aten.unfold_backward.default: _added_windows,
}
