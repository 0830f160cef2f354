"""Indexing by tables of positions, or along several axes -> by one list of positions along one axis, or a gather."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any, Final

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite
from passes.graphs.nodes import argument, schema_of

_COUNTS: Final = (aten.arange.default, aten.arange.start, aten.arange.start_step)


def _indexed(node: Node, emit: Emitter) -> Value | None:
    x, given = emit.value(argument(node, "self")), argument(node, "indices")
    axes = [axis for axis, index in enumerate(given) if index is not None]
    indices = [emit.value(given[axis]) for axis in axes]
    if any(index.fake.dtype != torch.int64 for index in indices) or axes != list(range(axes[0], axes[-1] + 1)):
        return None
    if len(axes) == 2 and axes[0] == 0 and _counts_samples(indices[0]):
        return _one_of_each_sample(x, indices[1])
    if len(axes) == 1 and indices[0].ndim == 1:
        return emit.call(aten.index.Tensor, x, given) if node.target is aten._unsafe_index.Tensor else None
    if any(emit.is_of_batch(x.shape[axis]) for axis in axes):
        return None
    return _flat(x, axes, indices)


def _flat(x: Value, axes: Sequence[int], indices: Sequence[Value]) -> Value:
    """The axes become one, and the positions along each of them one position along that."""
    sizes = [x.shape[axis] for axis in axes]
    places = [x.emit.call(aten.remainder.Scalar, index, size) for index, size in zip(indices, sizes, strict=True)]
    place = reduce(lambda before, pair: before * pair[1] + pair[0], zip(places[1:], sizes[1:], strict=True), places[0])
    before, after = x.shape[: axes[0]], x.shape[axes[-1] + 1 :]
    merged = x.reshape([*before, prod(sizes), *after]) if len(axes) > 1 else x
    taken = x.emit.call(aten.index_select.default, merged, axes[0], place.reshape([-1]))
    return taken if place.ndim == 1 else taken.reshape([*before, *place.shape, *after])


def _counts_samples(index: Value) -> bool:
    """0, 1, ... up to the number of samples."""
    if index.node.target not in _COUNTS or not index.emit.is_of_batch(index.shape[0]):
        return False
    given = {entry.name: argument(index.node, entry.name) for entry in schema_of(index.node)}
    return given.get("start", 0) == 0 and given.get("step", 1) == 1


def _one_of_each_sample(x: Value, index: Value) -> Value | None:
    """`x[arange(N), index]`: of every sample one element of axis 1."""
    if index.ndim != 1:
        return None
    place = x.emit.call(aten.remainder.Scalar, index, x.shape[1]).reshape([-1, *[1] * (x.ndim - 1)])
    sizes = x.sizes()
    sizes[1] = 1
    places = x.emit.call(aten.expand.default, place, sizes) if x.ndim > 2 else place
    return x.emit.call(aten.squeeze.dims, x.emit.call(aten.gather.default, x, 1, places), [1])


INDEXING: Final[dict[Any, Rewrite]] = {aten.index.Tensor: _indexed, aten._unsafe_index.Tensor: _indexed}
