"""Batch norm (inference) -> folded into the affine layer before or after it, or a constant scale and shift.

With k = γ / √(σ² + ε) and t = β - k μ, batch norm is y = k x + t, channel by channel.

1. affine -> batch norm          W' = k W, b' = k b + t
2. concatenate of affines -> batch norm    the same, each with its channels' part of k and t
3. batch norm -> affine          W' = W k, b' = b + W t; convolutions only without padding, where it is exact
4. otherwise                     y = k x + t as a multiplication and an addition

Guarantees: no batch norm is left. Folding is done in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import getitem
from typing import Any, ClassVar, final

import torch
from torch.fx import GraphModule, Node

from passes.graphs.anchors import is_read_once
from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import calls, erase_unused, erase_with_operands, replace, tensor_of
from passes.graphs.nodes import argument, arguments
from passes.operators.affine import AffineCall, ConvolutionCall, Geometry
from passes.operators.table import is_a

_BATCH_NORM = aten._native_batch_norm_legit_no_training.default


@final
class MergeBatchNorm:
    """Fold every batch norm where that is exact; write the others as scale and shift."""

    name: ClassVar[str] = "merge-batch-norm"

    def apply(self, module: GraphModule, /) -> int:
        emit, count = Emitter(module), 0
        for node in calls(module, _BATCH_NORM):
            output = next(user for user in node.users if user.target is getitem and user.args[1] == 0)
            with emit.inserting_before(output):
                replace(output, _merged(node, output, emit))
            erase_with_operands(node)
            count += 1
        unread = erase_unused(module)
        return count or unread


@dataclass(frozen=True)
class _Channelwise:
    """y = scale x + shift along one axis; float64, shape (C,)."""

    scale: torch.Tensor
    shift: torch.Tensor

    def part(self, start: int, size: int) -> _Channelwise:
        return _Channelwise(self.scale[start : start + size], self.shift[start : start + size])


def _merged(node: Node, output: Node, emit: Emitter) -> Value:
    map_ = _channelwise(node, emit.module)
    x: Any = arguments(node)[0]
    if _is_foldable(x, emit.module):
        return _fold_into_producer(x, map_, emit)
    if _is_foldable_concatenation(x, emit.module):
        return _fold_into_concatenation(x, map_, emit)
    consumer = next(iter(output.users)) if is_read_once(output) else None
    if consumer is not None and _is_exact_before(consumer, output, emit.module):
        _fold_into_consumer(consumer, map_, emit)
        return emit.value(x)
    shape = [-1] + [1] * (x.meta["val"].dim() - 2)
    dtype = x.meta["val"].dtype
    scale = emit.constant(f"{node.name}_scale", map_.scale.to(dtype).reshape(shape))
    shift = emit.constant(f"{node.name}_shift", map_.shift.to(dtype).reshape(shape))
    return emit.value(x) * scale + shift


def _channelwise(node: Node, module: GraphModule) -> _Channelwise:
    names = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, variance = (tensor_of(module, argument(node, name)) for name in names)
    if mean is None or variance is None:
        raise ValueError("batch norm without running statistics has no inference form")
    mean, variance = mean.double(), variance.double()
    scale = torch.rsqrt(variance + float(argument(node, "eps")))
    scale = scale if gamma is None else scale * gamma.double()
    shift = -mean * scale
    return _Channelwise(scale, shift if beta is None else shift + beta.double())


def _is_foldable(node: Node, module: GraphModule) -> bool:
    """An affine layer with stored weights, read once, whose channels are on axis 1 of its output."""
    stored = is_a(node, AffineCall) and tensor_of(module, argument(node, "weight")) is not None
    on_axis_one = is_a(node, ConvolutionCall) or node.meta["val"].dim() == 2
    return stored and on_axis_one and is_read_once(node)


def _is_foldable_concatenation(node: Node, module: GraphModule) -> bool:
    if node.target is not aten.cat.default or not is_read_once(node) or argument(node, "dim") != 1:
        return False
    parts: Any = arguments(node)[0]
    return len(set(parts)) == len(parts) and all(_is_foldable(part, module) for part in parts)


def _fold_into_concatenation(node: Node, map_: _Channelwise, emit: Emitter) -> Value:
    parts: Any = arguments(node)[0]
    start, merged = 0, list[Value]()
    for part in parts:
        size = int(part.meta["val"].shape[1])
        with emit.on_behalf_of(part):
            merged.append(_fold_into_producer(part, map_.part(start, size), emit))
        start += size
    return emit.call(aten.cat.default, merged, 1)


def _fold_into_producer(affine: Node, map_: _Channelwise, emit: Emitter) -> Value:
    weight, bias = _parameters(affine, emit.module)
    scale = map_.scale
    if _is_transposed(affine):
        groups = Geometry.of(affine).groups
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        folded = grouped * scale.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
        folded = folded.reshape(weight.shape)
    else:
        folded = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    return _with_parameters(affine, folded, bias * scale + map_.shift, arguments(affine)[0], emit)


def _is_exact_before(consumer: Node, batch_norm: Node, module: GraphModule) -> bool:
    """`consumer` is an affine layer with stored weights that reads `batch_norm` without padding it."""
    if not is_a(consumer, AffineCall) or arguments(consumer)[0] is not batch_norm:
        return False
    if tensor_of(module, argument(consumer, "weight")) is None:
        return False
    if not is_a(consumer, ConvolutionCall):
        return batch_norm.meta["val"].dim() == 2
    return not _is_transposed(consumer) and not any(Geometry.of(consumer).padding)


def _fold_into_consumer(affine: Node, map_: _Channelwise, emit: Emitter) -> None:
    weight, bias = _parameters(affine, emit.module)
    groups = Geometry.of(affine).groups if is_a(affine, ConvolutionCall) else 1
    inputs = weight.shape[1]
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    shape = (groups, 1, inputs, *[1] * (weight.dim() - 2))
    added = (grouped * map_.shift.reshape(shape)).reshape(weight.shape).flatten(1).sum(1)
    folded = (grouped * map_.scale.reshape(shape)).reshape(weight.shape)
    with emit.inserting_before(affine):
        replace(affine, _with_parameters(affine, folded, bias + added, arguments(affine)[0], emit))


def _parameters(affine: Node, module: GraphModule) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias in float64; a missing bias is zero."""
    weight, bias = (tensor_of(module, argument(affine, name)) for name in ("weight", "bias"))
    if weight is None:
        raise ValueError(f"{affine.name}: the weight is computed in the graph")
    outputs = int(affine.meta["val"].shape[1 if is_a(affine, ConvolutionCall) else -1])
    zero = torch.zeros(outputs, dtype=torch.float64, device=weight.device)
    return weight.double(), zero if bias is None else bias.double()


def _with_parameters(affine: Node, weight: torch.Tensor, bias: torch.Tensor, x: Any, emit: Emitter) -> Value:
    dtype, name = affine.meta["val"].dtype, str(argument(affine, "weight").target)
    new_weight = emit.constant(name, weight.to(dtype))
    new_bias = emit.constant(name.replace("weight", "bias"), bias.to(dtype))
    with emit.on_behalf_of(affine):
        return emit.call(affine.target, x, new_weight, new_bias, *arguments(affine)[3:])


def _is_transposed(affine: Node) -> bool:
    return is_a(affine, ConvolutionCall) and Geometry.of(affine).transposed
