"""Maxima of uneven windows, where maxima lie, unpooling -> positions by argmax, and values taken or written there."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite
from passes.graphs.nodes import argument
from passes.operators.pooling import MaxWindow, has_known_sides
from passes.rewrites.decompositions.assignments import zeros_like
from passes.rewrites.decompositions.spellings import chosen_windows, windows


def places_of_maxima(pool: Node, emit: Emitter) -> Value | None:
    """The second result of a max pool: positions in the flattened places of x, of equal maxima the first."""
    x, window = emit.value(argument(pool, "self")), MaxWindow.of(pool)
    if any(window.padding) or window.ceil_mode or not has_known_sides(pool):
        return None
    sides, rank = x.shape[2:], len(window.kernel_size)
    base, offset = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.int64)
    for axis, (k, stride, dilation) in enumerate(zip(window.kernel_size, window.stride, window.dilation, strict=True)):
        reach, step = dilation * (k - 1), prod(sides[axis + 1 :])
        base = base[..., None] + torch.arange(0, sides[axis] - reach, stride) * step
        offset = offset[..., None] + torch.arange(k) * dilation * step
        x = windows(x, 2 + axis, k, stride, dilation)
    best = emit.call(aten.argmax.default, x.reshape([*x.shape[:-rank], offset.numel()]), -1)
    inside = emit.call(aten.index_select.default, emit.constant("offset", offset.reshape(-1)), 0, best.reshape([-1]))
    return inside.reshape_like(best) + emit.constant("base", base)


def uneven_maxima(x: Value, output: Sequence[int]) -> Value | None:
    """An adaptive max pool whose windows do not tile the input; a short window has its last element again."""
    sides, rank = x.shape[2:], len(output)
    if not all(isinstance(side, int) for side in sides):
        return None
    for axis, (side, count) in enumerate(zip(sides, output, strict=True)):
        first = torch.arange(count) * side // count
        end = ((torch.arange(count) + 1) * side + count - 1) // count
        places = first[:, None] + torch.arange(int((end - first).max()))
        x = chosen_windows(x, 2 + axis, places.minimum(end[:, None] - 1))
    elements = x.reshape([*x.shape[:-rank], prod(x.shape[-rank:])])
    best = x.emit.call(aten.argmax.default, elements, -1, True)
    taken = x.emit.call(aten.gather.default, elements, elements.ndim - 1, best)
    return x.emit.call(aten.squeeze.dims, taken, [elements.ndim - 1])


def _unpooled(node: Node, emit: Emitter) -> Value:
    """max_unpool: every maximum at the place that it was found at, zeros elsewhere."""
    x, sides = emit.value(argument(node, "self")), argument(node, "output_size")
    flat = [*x.shape[: -len(sides)], prod(x.shape[-len(sides) :])]
    places, elements = emit.value(argument(node, "indices")).reshape(flat), x.reshape(flat)
    image = emit.call(aten.scatter.src, zeros_like(elements, prod(sides)), len(flat) - 1, places, elements)
    return image.reshape([*flat[:-1], *sides])


UNPOOLING: Final[dict[Any, Rewrite]] = {
    aten.max_unpool2d.default: _unpooled,
    aten.max_unpool3d.default: _unpooled,
}
