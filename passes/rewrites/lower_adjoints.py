"""Adjoints in torch's backward operators -> forward operators that inference runtimes have and run well.

1. stride-1 transposed convolution -> convolution with flipped, transposed weights (0.75 of the time for dense
   3x3 kernels on ONNX Runtime's CPU provider, 0.15 to 0.45 for depthwise ones); strided ones stay
2. max-pool adjoint -> one axis after the other: compare every window position with the maximum; the first that
   equals it takes the window's multiplier, and what it took is gone. No Indices output, which is slow, no scatter
3. average-pool adjoint -> nearest-neighbour resize if windows tile the input, else a depthwise transposed
   convolution with ones
4. where(c, m, 0) -> m c, ⟨z⟩ε and choices between two affine maps -> sums of products (a tenth of the time)
5. a stable order -> the sort that runtimes have, and its positions
6. log σ(z) -> -softplus(-z): exporters write the logarithm of a sigmoid, which is -inf below -18

Guarantees: equal numbers up to rounding for finite values; the first of equal maxima wins, as in torch. `*_backward`
operators of pools are gone. Most of those of activations stay: the exporter decomposes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, final

import torch
from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite, erase_unused, rewrite_calls
from passes.graphs.nodes import arguments
from passes.operators.affine import Geometry
from passes.operators.pooling import AverageWindow, MaxWindow
from passes.rewrites.decompositions.selection import as_sort
from passes.rewrites.optimise.choices import as_product, as_sum, elu_slope, leaky_slope


@final
class LowerAdjoints:
    """Rewrite every adjoint for a runtime without backward operators."""

    name: ClassVar[str] = "lower-adjoints"

    def apply(self, module: GraphModule, /) -> int:
        count = rewrite_calls(module, _POOLS)
        count += erase_unused(module)
        return count + rewrite_calls(module, _OTHERS)


def _transposed_convolution(node: Node, emit: Emitter) -> Value | None:
    """conv_transpose(s, W) of stride 1 = conv(s, flip(Wᵀ)), padded by dilation (k - 1) - padding."""
    s, weight, bias = arguments(node)[:3]
    geometry = Geometry.of(node)
    w, groups = emit.value(weight), geometry.groups
    inputs, per_group, *spatial = w.shape
    full = [d * (k - 1) - p for d, k, p in zip(geometry.dilation, spatial, geometry.padding, strict=True)]
    strided = any(st != 1 for st in geometry.stride) or any(geometry.output_padding)
    if not geometry.transposed or strided or min(full) < 0:
        return None
    axes = list(range(2, w.ndim))
    if groups == 1:
        turned = w.permute([1, 0, *axes])
    elif per_group == 1 and inputs == groups:
        turned = w
    else:
        grouped = w.reshape([groups, inputs // groups, per_group, *spatial])
        turned = grouped.permute([0, 2, 1, *[d + 1 for d in axes]])
        turned = turned.reshape([groups * per_group, inputs // groups, *spatial])
    if prod(spatial) > 1:
        turned = emit.call(aten.flip.default, turned, axes)
    forward = geometry._replace(transposed=False, stride=[1] * len(spatial), padding=full)
    return emit.call(aten.convolution.default, s, turned, bias, *forward)


def _log_sigmoid(node: Node, emit: Emitter) -> Value:
    return -emit.call(aten.softplus.default, -emit.value(arguments(node)[0]))


def _max_pool(node: Node, emit: Emitter) -> Value:
    """A maximum over a window is a maximum over its last axis, then the one before, ...: undo them in turn.

    The first of the rows that hold the maximum wins, then the first element in it: the first in row-major order.
    """
    m, x = emit.value(arguments(node)[0]), emit.value(arguments(node)[1])
    kernel, stride, padding, dilation, ceil = MaxWindow.of(node)
    rank = len(kernel)
    if all(k >= st for k, st in zip(kernel, stride, strict=True)):  # every element lies in a window
        x = _without_copies(x)
    forward = aten.max_pool2d.default if rank == 2 else aten.max_pool3d.default
    stages = [x]
    for axis in reversed(range(rank)):
        here = _only(axis, rank)
        window = [here(kernel, 1), here(stride, 1), here(padding, 0), here(dilation, 1), ceil]
        stages.append(emit.call(forward, stages[-1], *window))
    for axis in range(rank):
        pooled, source = stages[rank - axis], stages[rank - axis - 1]
        geometry = _Window(axis + 2, kernel[axis], stride[axis], padding[axis], dilation[axis])
        m = _first_maximum_takes_all(m, source, pooled, geometry)
    return m


def _without_copies(x: Value) -> Value:
    """The one sample of which the batch is copies: its maxima are the same for all."""
    original: Any = arguments(x.node)[0] if x.node.target is aten.expand.default else x.node
    return x.emit.value(original) if original.meta["val"].shape[1:] == x.fake.shape[1:] else x


def _only(axis: int, rank: int) -> Callable[[list[int], int], list[int]]:
    """Window parameters of one axis; `neutral` elsewhere."""
    return lambda values, neutral: [values[d] if d == axis else neutral for d in range(rank)]


@dataclass(frozen=True)
class _Window:
    """The windows of a pool along one axis."""

    axis: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def reach(self) -> int:
        """Windows and cells differ by less in number."""
        return self.kernel * self.dilation + 2 * self.padding + self.stride + 2


def _first_maximum_takes_all(m: Value, x: Value, y: Value, window: _Window) -> Value:
    """Adjoint of the maximum `y` of `x` along one axis.

    Window w covers the elements stride (w + shift) + phase of x, one (phase, shift) per window position.
    """
    axis, count, stride = window.axis, y.shape[window.axis], window.stride
    if window.kernel == stride == 1 and not window.padding:
        return m
    phases = [x.slice(axis, phase, x.shape[axis], stride) for phase in range(stride)]
    planes = dict[int, Value]()
    for position in range(window.kernel):
        shift, phase = divmod(position * window.dilation - window.padding, stride)
        share = m
        if position < window.kernel - 1:  # the last one takes what is left: nobody before it was the maximum
            candidate = _shifted(phases[phase], axis, -shift, count, float("-inf"), window.reach)
            share = m * candidate.equals(y)
            m = m - share
        plane = _shifted(share, axis, shift, phases[phase].shape[axis], 0.0, window.reach)
        planes[phase] = planes[phase] + plane if phase in planes else plane
    return _interleaved([planes.get(k) or phases[k].zeros() for k in range(stride)], axis, x.shape[axis])


def _shifted(value: Value, axis: int, offset: int, length: Any, fill: float, reach: int) -> Value:
    """The first `length` elements of `value` moved by `offset` along `axis`, with `fill` where it has none.

    `reach`: where sizes are free, at least as many elements as may be missing behind the last one.
    """
    if not isinstance(length, int):
        part = value.slice(axis, max(-offset, 0), value.shape[axis])
        return part.pad([0, 0] * (value.ndim - axis - 1) + [max(offset, 0), reach], fill).slice(axis, 0, length)
    first = min(max(-offset, 0), value.shape[axis])
    last = max(min(value.shape[axis], length - offset), first)
    part = value.slice(axis, first, last)
    before = min(max(offset, 0), length)
    return part.pad([0, 0] * (value.ndim - axis - 1) + [before, length - before - (last - first)], fill)


def _interleaved(planes: list[Value], axis: int, size: int) -> Value:
    """Element i of plane k becomes element len(planes) i + k of `size`."""
    if len(planes) == 1:
        return planes[0]
    cells = planes[0].shape[axis]
    stacked = planes[0].emit.call(
        aten.stack.default, [_shifted(plane, axis, 0, cells, 0.0, 1) for plane in planes], axis + 1
    )
    shape = list(stacked.shape)
    return stacked.reshape([*shape[:axis], cells * len(planes), *shape[axis + 2 :]]).slice(axis, 0, size)


def _average_pool(node: Node, emit: Emitter) -> Value:
    m, x = emit.value(arguments(node)[0]), emit.value(arguments(node)[1])
    window = AverageWindow.of(node)
    kernel, stride, padding = window.kernel_size, window.stride, window.padding
    sizes, windows = x.shape[2:], m.shape[2:]
    tiles = list(kernel) == list(stride) and not any(padding)
    known = all(isinstance(size, int) for size in sizes)
    if known and tiles and all(w * k == size for w, k, size in zip(windows, kernel, sizes, strict=True)):
        nearest = aten.upsample_nearest2d.vec if len(kernel) == 2 else aten.upsample_nearest3d.vec
        return emit.call(nearest, m * (1 / (window.divisor_override or prod(kernel))), list(sizes), None)
    spread = _share(m, x, window) if known else _free_share(m, x, window)
    channels = int(x.shape[1])
    ones = emit.constant("window", torch.ones(1, 1, *kernel, dtype=m.fake.dtype))
    weight = emit.call(aten.expand.default, ones, [channels, 1, *kernel])
    zeros = [0] * len(kernel)
    geometry = Geometry(stride, zeros, [1] * len(kernel), transposed=True, output_padding=zeros, groups=channels)
    whole = emit.call(aten.convolution.default, spread, weight, None, *geometry)
    for axis, (before, size) in enumerate(zip(padding, sizes, strict=True), start=2):
        whole = _shifted(whole, axis, -before, size, 0.0, stride[axis - 2])
    return whole


def _share(m: Value, x: Value, window: AverageWindow) -> Value:
    """What every element of a window gets."""
    counts = _window_counts(
        x.shape[2:], m.shape[2:], window.kernel_size, window.stride, window.padding, window.count_include_pad
    )
    scale = torch.full_like(counts, 1 / window.divisor_override) if window.divisor_override else 1 / counts
    uniform = bool((scale == scale.flatten()[0]).all())
    return m * (float(scale.flatten()[0]) if uniform else m.emit.constant("window_weights", scale.to(m.fake.dtype)))


def _free_share(m: Value, x: Value, window: AverageWindow) -> Value:
    """The same where the sides of x are free: windows that reach over the edge are counted when the graph runs."""
    size = prod(window.kernel_size)
    if window.divisor_override or window.count_include_pad or not any(window.padding):
        return m * (1 / (window.divisor_override or size))
    pool = aten.avg_pool2d.default if x.ndim == 4 else aten.avg_pool3d.default
    filled = x.slice(1, 0, 1).ones()
    return m / (x.emit.call(pool, filled, window.kernel_size, window.stride, window.padding, False, True) * size)


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

_OTHERS: dict[Any, Rewrite] = {
    aten.convolution.default: _transposed_convolution,
    aten.where.ScalarOther: as_product,
    aten.where.self: as_sum,
    aten.leaky_relu_backward.default: leaky_slope,
    aten.elu_backward.default: elu_slope,
    aten.argsort.stable: as_sort,
    aten.log_sigmoid.default: _log_sigmoid,
}
