"""Adjoints in torch's backward operators -> forward operators that inference runtimes have and run well.

1. stride-1 transposed convolution -> convolution with flipped, transposed weights (0.75 of the time for dense
   3x3 kernels on ONNX Runtime's CPU provider, 0.15 to 0.45 for depthwise ones); strided ones stay
2. max-pool adjoint -> compare every window position with the maximum; the first that equals it takes the window's
   multiplier, and what it took is gone. No Indices output, which is slow, and no scatter
3. average-pool adjoint -> nearest-neighbour resize if windows tile the input, else a depthwise transposed
   convolution with ones

Guarantees: equal numbers up to rounding; the first of equal maxima wins, as in torch. `*_backward` operators of
pools are gone. Those of activations stay: the exporter decomposes them.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any, ClassVar, final

import torch
from torch.fx import GraphModule, Node

from passes.emitter import Emitter, Value, aten
from passes.graph import Rewrite, erase_unused, rewrite_calls
from passes.operators.call import argument


@final
class LowerAdjoints:
    """Rewrite every adjoint for a runtime without backward operators."""

    name: ClassVar[str] = "lower-adjoints"

    def apply(self, module: GraphModule, /) -> int:
        count = rewrite_calls(module, _POOLS)
        count += erase_unused(module)
        return count + rewrite_calls(module, {aten.convolution.default: _transposed_convolution})


def _transposed_convolution(node: Node, emit: Emitter) -> Value | None:
    """conv_transpose(s, W) of stride 1 = conv(s, flip(Wᵀ)), padded by dilation (k - 1) - padding."""
    s, weight, bias, stride, padding, dilation, transposed, output_padding, groups = node.args
    spatial: list[int] = list(weight.meta["val"].shape[2:])  # pyright: ignore
    full = [d * (k - 1) - p for d, k, p in zip(dilation, spatial, padding, strict=True)]  # pyright: ignore
    if not transposed or any(st != 1 for st in stride) or any(output_padding) or min(full) < 0:  # pyright: ignore
        return None
    w = emit.value(weight)  # pyright: ignore
    inputs, per_group = w.shape[:2]
    axes = list(range(2, w.ndim))
    if groups == 1:
        turned = w.permute([1, 0, *axes])
    elif per_group == 1:
        turned = w
    else:
        grouped = w.reshape([groups, inputs // groups, per_group, *spatial])
        turned = grouped.permute([0, 2, 1, *[d + 1 for d in axes]])
        turned = turned.reshape([groups * per_group, inputs // groups, *spatial])
    if prod(spatial) > 1:
        turned = emit.call(aten.flip.default, turned, axes)
    zeros = [0] * len(spatial)
    return emit.call(aten.convolution.default, s, turned, bias, [1] * len(spatial), full, dilation, False, zeros, groups)


def _max_pool(node: Node, emit: Emitter) -> Value:
    m, x = emit.value(node.args[0]), emit.value(node.args[1])  # pyright: ignore
    kernel, stride, padding, dilation, ceil = (argument(node, k) for k in range(2, 7))
    forward = aten.max_pool2d.default if len(kernel) == 2 else aten.max_pool3d.default
    y = emit.call(forward, x, kernel, stride, padding, dilation, ceil)
    windows = y.shape[2:]
    reach = [(o - 1) * st + d * (k - 1) + 1 for o, st, d, k in zip(windows, stride, dilation, kernel, strict=True)]
    padded = _pad_to(x, padding, reach, float("-inf"))
    taken = dict[tuple[int, ...], Value]()
    for offset in product(*map(range, kernel)):
        start = [o * d for o, d in zip(offset, dilation, strict=True)]
        candidate = _strided(padded, start, stride, windows)
        share = m.where(candidate.equals(y), 0.0)
        taken[tuple(start)] = share
        m = m - share
    return _interleaved(taken, stride, windows, padding, x)


def _strided(value: Value, start: list[int], stride: list[int], count: tuple[int, ...]) -> Value:
    """Elements start, start + stride, ... (`count` of them) along every spatial axis."""
    for axis, (first, step, number) in enumerate(zip(start, stride, count, strict=True), start=2):
        value = value.slice(axis, first, first + step * (number - 1) + 1, step)
    return value


def _interleaved(
    parts: dict[tuple[int, ...], Value], stride: list[int], windows: tuple[int, ...], padding: list[int], x: Value
) -> Value:
    """Adjoint of `_strided`: put the parts back to start + stride * window, add what overlaps, drop the padding."""
    steps = [max(start[d] for start in parts) // st for d, st in enumerate(stride)]
    cells = [w + extra for w, extra in zip(windows, steps, strict=True)]
    planes = dict[tuple[int, ...], Value]()
    for start, part in parts.items():
        phase = tuple(s % st for s, st in zip(start, stride, strict=True))
        shift = [s // st for s, st in zip(start, stride, strict=True)]
        after = [c - w - s for c, w, s in zip(cells, windows, shift, strict=True)]
        amounts = [a for pair in zip(reversed(shift), reversed(after), strict=True) for a in pair]
        plane = part.pad(amounts)
        planes[phase] = planes[phase] + plane if phase in planes else plane
    zero = next(iter(planes.values())).zeros() if len(planes) < prod(stride) else None
    ordered = [planes.get(phase, zero) for phase in product(*map(range, stride))]
    whole = _depth_to_space([plane for plane in ordered if plane is not None], stride)
    start = [0, 0, *padding]
    for axis in range(2, x.ndim):
        size = whole.shape[axis]
        missing = start[axis] + x.shape[axis] - size
        if missing > 0:
            whole = whole.pad([0, 0] * (x.ndim - axis - 1) + [0, missing])
        whole = whole.slice(axis, start[axis], start[axis] + x.shape[axis])
    return whole


def _depth_to_space(planes: list[Value], stride: list[int]) -> Value:
    """One plane per phase -> the interleaved whole."""
    if len(planes) == 1:
        return planes[0]
    emit, first, rank = planes[0].emit, planes[0], len(stride)
    if rank == 2 and stride[0] == stride[1]:
        stacked = emit.call(aten.stack.default, planes, 2)
        merged = stacked.reshape([first.shape[0], first.shape[1] * len(planes), *first.shape[2:]])
        return emit.call(aten.pixel_shuffle.default, merged, stride[0])
    stacked = emit.call(aten.stack.default, planes, 2)
    cells = first.shape[2:]
    split = stacked.reshape([*first.shape[:2], *stride, *cells])
    order = [0, 1, *(axis for d in range(rank) for axis in (2 + rank + d, 2 + d))]
    return split.permute(order).reshape([*first.shape[:2], *(c * s for c, s in zip(cells, stride, strict=True))])


def _pad_to(x: Value, padding: list[int], reach: list[int], value: float) -> Value:
    """x with `padding` in front and, behind, whatever the last window needs (or less than nothing)."""
    sizes = x.shape[2:]
    behind = [r - p - size for r, p, size in zip(reach, padding, sizes, strict=True)]
    amounts = [a for pair in zip(reversed(padding), (max(b, 0) for b in reversed(behind)), strict=True) for a in pair]
    return x.pad(amounts, value)


def _average_pool(node: Node, emit: Emitter) -> Value:
    m, x = emit.value(node.args[0]), emit.value(node.args[1])  # pyright: ignore
    kernel, stride, padding, ceil, include, divisor = (argument(node, k) for k in range(2, 8))
    sizes, windows = x.shape[2:], m.shape[2:]
    tiles = list(kernel) == list(stride) and not any(padding)
    if tiles and all(w * k == size for w, k, size in zip(windows, kernel, sizes, strict=True)):
        nearest = aten.upsample_nearest2d.vec if len(kernel) == 2 else aten.upsample_nearest3d.vec
        return emit.call(nearest, m * (1 / (divisor or prod(kernel))), list(sizes), None)
    counts = _window_counts(sizes, windows, kernel, stride, padding, include)
    scale = torch.full_like(counts, 1 / divisor) if divisor else 1 / counts
    uniform = bool((scale == scale.flatten()[0]).all())
    dtype = m.fake.dtype
    spread = m * (float(scale.flatten()[0]) if uniform else emit.constant("window_weights", scale.to(dtype)))
    channels = int(x.shape[1])
    ones = emit.constant("window", torch.ones(1, 1, *kernel, dtype=dtype))
    weight = emit.call(aten.expand.default, ones, [channels, 1, *kernel])
    zeros = [0] * len(kernel)
    whole = emit.call(
        aten.convolution.default, spread, weight, None, stride, zeros, [1] * len(kernel), True, zeros, channels
    )
    missing = [max(p + s - have, 0) for p, s, have in zip(padding, sizes, whole.shape[2:], strict=True)]
    whole = whole.pad([a for amount in reversed(missing) for a in (0, amount)])
    for axis, (p, size) in enumerate(zip(padding, sizes, strict=True), start=2):
        whole = whole.slice(axis, p, p + size)
    return whole


def _window_counts(
    sizes: Any, windows: Any, kernel: list[int], stride: list[int], padding: list[int], include: bool
) -> torch.Tensor:
    """How many elements every window averages over, (1, 1, windows...), float64."""
    total = torch.ones([1, 1] + [1] * len(kernel), dtype=torch.float64)
    low = 0 if not include else None
    for axis, (size, count, k, st, p) in enumerate(zip(sizes, windows, kernel, stride, padding, strict=True)):
        starts = [w * st - p for w in range(count)]
        ends = [min(start + k, size + p) for start in starts]
        if low is not None:
            starts, ends = [max(s, 0) for s in starts], [min(e, size) for e in ends]
        along = torch.tensor([e - s for s, e in zip(starts, ends, strict=True)], dtype=torch.float64)
        shape = [1] * total.dim()
        shape[axis + 2] = count
        total = total * along.reshape(shape)
    return total



_POOLS: dict[Any, Rewrite] = {
    aten.max_pool2d_with_indices_backward.default: _max_pool,
    aten.max_pool3d_with_indices_backward.default: _max_pool,
    aten.avg_pool2d_backward.default: _average_pool,
    aten.avg_pool3d_backward.default: _average_pool,
}
