"""Samples of an image between its pixels, at the places of a grid -> the pixels around them, times their shares."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite
from passes.graphs.nodes import argument

_BILINEAR, _NEAREST = 0, 1
_ZEROS, _BORDER = 0, 1


def _sampled(node: Node, emit: Emitter) -> Value | None:
    """grid_sampler_2d: x (N, C, H, W) at grid (N, h, w, 2), columns before rows, -1..1 from side to side."""
    x, grid = emit.value(argument(node, "input")), emit.value(argument(node, "grid"))
    mode, padding = argument(node, "interpolation_mode"), argument(node, "padding_mode")
    sides = x.shape[2:]
    if mode > _NEAREST or padding > _BORDER or not all(isinstance(side, int) for side in sides):
        return None
    across, down = (_pixels(grid, axis, sides[1 - axis], node) for axis in range(2))
    flat = x.reshape([*x.shape[:2], sides[0] * sides[1]])
    total: Value | None = None
    for row, share in _neighbours(down, sides[0], mode):
        for column, part in _neighbours(across, sides[1], mode):
            places = emit.call(aten._to_copy.default, row * sides[1] + column, dtype=torch.int64)
            index = emit.call(
                aten.expand.default, emit.call(aten.unsqueeze.default, places, 1), _channels(flat, places)
            )
            taken = emit.call(aten.gather.default, flat, 2, index)
            weighed = taken * emit.call(aten.unsqueeze.default, share * part, 1)
            total = weighed if total is None else total + weighed
    return None if total is None else total.reshape([*x.shape[:2], *grid.shape[1:3]])


def _pixels(grid: Value, axis: int, side: int, node: Node) -> Value:
    """Places along a side in pixels, (N, h w)."""
    place = grid.emit.call(aten.select.int, grid, 3, axis)
    place = place.reshape([place.shape[0], place.shape[1] * place.shape[2]])
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


def _channels(flat: Value, places: Value) -> list[Any]:
    return [flat.sizes()[0], flat.shape[1], places.shape[1]]


GRID_SAMPLING: Final[dict[Any, Rewrite]] = {aten.grid_sampler_2d.default: _sampled}
