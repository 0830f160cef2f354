"""Samples of an image between its pixels, at the places of a grid -> the pixels around them, times their shares."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import product
from math import prod
from typing import Any, Final

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite
from passes.graphs.nodes import argument

_BILINEAR, _NEAREST = 0, 1
_ZEROS, _BORDER = 0, 1


def _sampled(node: Node, emit: Emitter) -> Value | None:
    """grid_sampler: x (N, C, H, W) at grid (N, h, w, 2), the last axis first, -1..1 from side to side; or volumes."""
    x, grid = emit.value(argument(node, "input")), emit.value(argument(node, "grid"))
    mode, padding = argument(node, "interpolation_mode"), argument(node, "padding_mode")
    sides = x.shape[2:]
    if mode > _NEAREST or padding > _BORDER or not all(isinstance(side, int) for side in sides):
        return None
    beside = [_neighbours(_pixels(grid, axis, side, node), side, mode) for axis, side in enumerate(sides)]
    flat = x.reshape([*x.shape[:2], prod(sides)])
    total = reduce(Value.__add__, (_weighed(flat, corner, sides) for corner in product(*beside)))
    return total.reshape([*x.shape[:2], *grid.shape[1:-1]])


def _weighed(flat: Value, corner: Sequence[tuple[Value, Value]], sides: Sequence[int]) -> Value:
    """The pixels at one corner of each place, times their shares."""
    emit, (place, share) = flat.emit, corner[0]
    for (pixel, part), side in zip(corner[1:], sides[1:], strict=True):
        place, share = place * side + pixel, share * part
    places = emit.call(aten._to_copy.default, place, dtype=torch.int64)
    sizes = [flat.sizes()[0], flat.shape[1], places.shape[1]]
    index = emit.call(aten.expand.default, emit.call(aten.unsqueeze.default, places, 1), sizes)
    return emit.call(aten.gather.default, flat, 2, index) * emit.call(aten.unsqueeze.default, share, 1)


def _pixels(grid: Value, axis: int, side: int, node: Node) -> Value:
    """Places along the axis of an image in pixels, (N, h w)."""
    place = grid.emit.call(aten.select.int, grid, grid.ndim - 1, grid.ndim - 3 - axis)
    place = place.reshape([place.shape[0], prod(place.shape[1:])])
    scale, shift = ((side - 1) / 2, 0.0) if argument(node, "align_corners") else (side / 2, -0.5)
    pixels = (place + 1.0) * scale + shift
    inside = argument(node, "padding_mode") == _BORDER
    return grid.emit.call(aten.clamp.default, pixels, 0, side - 1) if inside else pixels


def _neighbours(place: Value, side: int, mode: int) -> list[tuple[Value, Value]]:
    """The pixels beside a place, each with its share; those outside of the image have none."""
    if mode == _NEAREST:
        nearest = place.emit.call(aten.round.default, place)
        found = [(nearest, nearest.ones())]
    else:
        before = place.emit.call(aten.floor.default, place)
        beyond = place - before
        found = [(before, -beyond + 1.0), (before + 1.0, beyond)]
    known = list[tuple[Value, Value]]()
    for pixel, share in found:
        inside = place.emit.call(aten.clamp.default, pixel, 0, side - 1)
        known.append((inside, share.where(inside.equals(pixel), 0.0)))
    return known


GRID_SAMPLING: Final[dict[Any, Rewrite]] = dict.fromkeys(
    (aten.grid_sampler_2d.default, aten.grid_sampler_3d.default), _sampled
)
