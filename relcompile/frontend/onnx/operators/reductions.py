"""Sums, means, extremes; softmax; norms."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from relcompile.frontend.onnx.node import Node, Numbers

Reduction = Callable[..., Tensor]


def reduced(function: Callable[[Tensor, list[int], bool], Tensor]) -> Reduction:
    """A reduction over some axes; over all, if none is given."""

    def reduce(node: Node, x: Tensor, axes: Numbers | None = None) -> Tensor:
        chosen = node.chosen("axes", axes)
        if not chosen and node.integer("noop_with_empty_axes", 0):
            return x
        dims = [int(axis) % x.dim() for axis in chosen or range(x.dim())]
        return function(x, dims, bool(node.integer("keepdims", 1)))

    return reduce


def mean(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    """The mean."""
    return x.mean(dims, keepdim=keep)


def total(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    """The sum."""
    return x.sum(dims, keepdim=keep)


def largest(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    """The maximum."""
    return x.amax(dims, keepdim=keep)


def smallest(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    """The minimum."""
    return x.amin(dims, keepdim=keep)


def product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    """The product."""
    for dim in sorted(dims, reverse=True):
        x = x.prod(dim, keepdim=keep)
    return x


def absolute_sum(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    """The sum of magnitudes."""
    return x.abs().sum(dims, keepdim=keep)


def euclidean(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    """The root of the sum of squares."""
    return (x * x).sum(dims, keepdim=keep).sqrt()


def sum_of_squares(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    """The sum of squares."""
    return (x * x).sum(dims, keepdim=keep)


def log_of_sum(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    """The logarithm of the sum."""
    return x.sum(dims, keepdim=keep).log()


def log_sum_exp(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    """The logarithm of the sum of exponentials."""
    return torch.logsumexp(x, dims, keepdim=keep)


def extreme_index(function: Callable[..., Tensor]) -> Reduction:
    """Where the largest or smallest value stands: the first of several, or the last."""

    def reduce(node: Node, x: Tensor) -> Tensor:
        axis, keep = node.integer("axis", 0), bool(node.integer("keepdims", 1))
        if not node.integer("select_last_index", 0):
            return function(x, axis, keepdim=keep)
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)

    return reduce


def cumulative_sum(node: Node, x: Tensor, axis: Numbers) -> Tensor:
    """Each the sum of those up to it, or before it."""
    dim = int(axis.item())
    x = x.flip(dim) if node.integer("reverse", 0) else x
    sums = torch.cumsum(x, dim)
    sums = sums - x if node.integer("exclusive", 0) else sums
    return sums.flip(dim) if node.integer("reverse", 0) else sums


def top_k(node: Node, x: Tensor, k: Numbers | None = None) -> tuple[Tensor, Tensor]:
    """The k largest or smallest, and where they stand: of equal ones the first."""
    count = node.integer("k", 1) if k is None else int(k.item())
    axis = node.integer("axis", -1)
    values, places = torch.sort(x, dim=axis, descending=bool(node.integer("largest", 1)), stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


def along_axis(function: Callable[[Tensor, int], Tensor]) -> Reduction:
    """Softmax and its like: along one axis; before opset 13 over all axes from it on."""

    def compute(node: Node, x: Tensor) -> Tensor:
        axis = node.integer("axis", -1 if node.opset >= 13 else 1) % x.dim()
        if node.opset >= 13 or axis == x.dim() - 1:
            return function(x, axis)
        return function(x.flatten(axis), axis).reshape(x.shape)

    return compute


def softmax(x: Tensor, axis: int) -> Tensor:
    """Exponentials, divided by their sum."""
    return torch.softmax(x, axis)


def log_softmax(x: Tensor, axis: int) -> Tensor:
    """The logarithm of softmax."""
    return torch.log_softmax(x, axis)


def layer_norm(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
    """Over the axes from one on; the means and the inverse deviations, if they are asked for."""
    axis, epsilon = node.integer("axis", -1) % x.dim(), node.number("epsilon", 1e-5)
    shape, axes = list(x.shape[axis:]), list(range(axis, x.dim()))
    weight, bias = weight.expand(shape), None if bias is None else bias.expand(shape)
    y = functional.layer_norm(x, shape, weight, bias, epsilon)
    if not any(node.outputs[1:]):
        return y
    middle = x.mean(axes, keepdim=True)
    return y, middle, torch.rsqrt(((x - middle) ** 2).mean(axes, keepdim=True) + epsilon)


def rms_norm(node: Node, x: Tensor, weight: Tensor) -> Tensor:
    """Divided by the root of the mean of squares."""
    axis = node.integer("axis", -1) % x.dim()
    return functional.rms_norm(x, list(x.shape[axis:]), weight, node.number("epsilon", 1e-5))


def instance_norm(node: Node, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Every channel of every sample for itself."""
    return functional.instance_norm(x, weight=weight, bias=bias, eps=node.number("epsilon", 1e-5))


def group_norm(node: Node, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Groups of channels; before opset 21 with one weight a group."""
    groups = node.integer("num_groups", 1)
    if weight.numel() == groups != x.shape[1]:
        weight, bias = (t.repeat_interleave(x.shape[1] // groups) for t in (weight, bias))
    return functional.group_norm(x, groups, weight, bias, node.number("epsilon", 1e-5))


def local_response(node: Node, x: Tensor) -> Tensor:
    """Divided by a power of the sum of squares of neighbouring channels."""
    size = node.integer("size", 1)
    alpha, beta, bias = node.number("alpha", 1e-4), node.number("beta", 0.75), node.number("bias", 1.0)
    return functional.local_response_norm(x, size, alpha, beta, bias)


def lp_norm(node: Node, x: Tensor) -> Tensor:
    """Divided by the 1-norm or the 2-norm along an axis."""
    return functional.normalize(x, node.integer("p", 2), node.integer("axis", -1))


def mean_variance(node: Node, x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over some axes."""
    axes = node.integers("axes") or [0, 2, 3]
    centred = x - x.mean(axes, keepdim=True)
    return centred / ((centred * centred).mean(axes, keepdim=True).sqrt() + 1e-9)


def attention(node: Node, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(cap(scale Q K^T) + mask) V; heads on an axis of their own, or side by side on the last."""
    packed = q.dim() == 3
    if packed:
        q_heads, kv_heads = node.integer("q_num_heads", 1), node.integer("kv_num_heads", 1)
        q = q.unflatten(-1, (q_heads, -1)).transpose(1, 2)
        k, v = (t.unflatten(-1, (kv_heads, -1)).transpose(1, 2) for t in (k, v))
    if k.shape[1] != q.shape[1]:
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    scale = node.number("scale", 1 / math.sqrt(q.shape[-1]))
    causal, cap = bool(node.integer("is_causal", 0)), node.number("softcap", 0.0)
    if causal and mask is not None:
        mask, causal = _causal(mask, q.shape[-2], k.shape[-2]), False
    if cap:
        mixed = _capped(q, k, scale, cap, _causal(None, q.shape[-2], k.shape[-2]) if causal else mask) @ v
    else:
        mixed = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale)
    return mixed.transpose(1, 2).flatten(2) if packed else mixed


def _causal(mask: Tensor | None, rows: int, columns: int) -> Tensor:
    """A mask that hides what comes later, too."""
    before = torch.ones((rows, columns), dtype=torch.bool).tril()
    if mask is None:
        return before
    return mask & before if mask.dtype == torch.bool else mask.masked_fill(~before, -math.inf)


def _capped(q: Tensor, k: Tensor, scale: float, cap: float, mask: Tensor | None) -> Tensor:
    """Weights of attention, of scores between -cap and cap."""
    scores = cap * torch.tanh(q @ k.transpose(-1, -2) * (scale / cap))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return torch.softmax(scores, -1)
