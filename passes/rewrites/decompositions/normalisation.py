"""Layer, group, instance norms and variances -> means, products and reciprocal roots.

A norm that is one operator and a norm that is written out are then the same graph: `x̂ = c ⊙ rsqrt(mean(c²) + ε)`, with
`c = x - mean(x)` where the norm centres. The factor behind c is what `views.statistics` finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from operator import getitem
from typing import Any

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite
from passes.graphs.nodes import argument


def _layer_norm(node: Node, emit: Emitter) -> Value:
    x, shape, weight, bias, epsilon = map(
        partial(argument, node), ("input", "normalized_shape", "weight", "bias", "eps")
    )
    normal = _standardised(emit.value(x), range(-len(shape), 0), epsilon)
    return _scaled_and_shifted(normal, weight, bias, None)


def _group_norm(node: Node, emit: Emitter) -> Value:
    """The channels of a group, and all places, are one axis."""
    x, groups, weight, bias, epsilon = map(partial(argument, node), ("input", "num_groups", "weight", "bias", "eps"))
    value = emit.value(x)
    grouped = value.reshape([value.shape[0], groups, prod(value.shape[1:]) // groups])
    return _scaled_and_shifted(_standardised(grouped, [2], epsilon).reshape_like(value), weight, bias, 1)


def _instance_norm(node: Node, emit: Emitter) -> Value:
    """With statistics that were learned it is a batch norm."""
    if not argument(node, "use_input_stats"):
        names = ("input", "weight", "bias", "running_mean", "running_var", "momentum", "eps")
        learned = emit.call(aten._native_batch_norm_legit_no_training.default, *(argument(node, n) for n in names))
        return emit.call(getitem, learned, 0)
    x, weight, bias, epsilon = map(partial(argument, node), ("input", "weight", "bias", "eps"))
    value = emit.value(x)
    return _scaled_and_shifted(_standardised(value, range(2, value.ndim), epsilon), weight, bias, 1)


def _rms_norm(node: Node, emit: Emitter) -> Value:
    x, shape, weight, epsilon = map(partial(argument, node), ("input", "normalized_shape", "weight", "eps"))
    value = emit.value(x)
    small = torch.finfo(value.fake.dtype).eps if epsilon is None else epsilon
    return _scaled_and_shifted(_over_root_mean_square(value, range(-len(shape), 0), small), weight, None, None)


def _variance(node: Node, emit: Emitter) -> Value:
    return _spread(node, emit)


def _deviation(node: Node, emit: Emitter) -> Value:
    return emit.call(aten.sqrt.default, _spread(node, emit))


def _spread(node: Node, emit: Emitter) -> Value:
    """The mean square of what is left of x without its mean, over n - correction in place of n."""
    x = emit.value(argument(node, "self"))
    dims = argument(node, "dim") or list(range(x.ndim))
    asked = argument(node, "correction")
    correction = 1 if asked is None else asked
    centred, keepdim = x - _mean(x, dims), argument(node, "keepdim")
    if correction == 0:
        return emit.call(aten.mean.dim, centred * centred, list(dims), keepdim)
    left = torch.sym_max(prod(x.shape[d] for d in dims) - correction, 0)
    return emit.call(aten.sum.dim_IntList, centred * centred, list(dims), keepdim) / left


def variance_and_mean(source: Node, index: int, emit: Emitter) -> Value:
    """Result `index` of `aten.var_mean`."""
    if index == 0:
        return _spread(source, emit)
    x = emit.value(argument(source, "self"))
    dims = argument(source, "dim") or list(range(x.ndim))
    return emit.call(aten.mean.dim, x, list(dims), argument(source, "keepdim"))


def _standardised(x: Value, dims: Sequence[int], epsilon: float) -> Value:
    return _over_root_mean_square(x - _mean(x, dims), dims, epsilon)


def _over_root_mean_square(x: Value, dims: Sequence[int], epsilon: float) -> Value:
    return x * x.emit.call(aten.rsqrt.default, _mean(x * x, dims) + epsilon)


def _mean(x: Value, dims: Sequence[int]) -> Value:
    return x.emit.call(aten.mean.dim, x, list(dims), True)


def _scaled_and_shifted(x: Value, weight: Node | None, bias: Node | None, axis: int | None) -> Value:
    """Weight and bias of the shape of the last axes, or of `axis`."""
    for parameter, operation in ((weight, Value.__mul__), (bias, Value.__add__)):
        if parameter is None:
            continue
        value = x.emit.value(parameter)
        if axis is not None:
            value = value.reshape([-1, *[1] * (x.ndim - axis - 1)])
        x = operation(x, value)
    return x


NORMALISATIONS: dict[Any, Rewrite] = {
    aten.layer_norm.default: _layer_norm,
    aten.group_norm.default: _group_norm,
    aten.instance_norm.default: _instance_norm,
    aten.rms_norm.default: _rms_norm,
    aten.var.correction: _variance,
    aten.std.correction: _deviation,
}
