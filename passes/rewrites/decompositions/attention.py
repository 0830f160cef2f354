"""Scaled dot-product attention -> products, a mask, a softmax; a softmax that is written out -> a softmax."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite
from passes.graphs.nodes import argument, arguments


def _attention(node: Node, emit: Emitter) -> Value:
    """`softmax(q kᵀ / √d + mask) v`: q (..., L, d), k (..., S, d), v (..., S, e); a row without any key gives zeros."""
    q, k, v = (emit.value(argument(node, name)) for name in ("query", "key", "value"))
    scale = argument(node, "scale")
    if argument(node, "enable_gqa"):
        k, v = _repeated_heads(k, q), _repeated_heads(v, q)
    scores = emit.call(aten.matmul.default, q * (1 / math.sqrt(q.shape[-1]) if scale is None else scale), _swapped(k))
    weights = _masked_softmax(scores, _mask(node, scores))
    return emit.call(aten.matmul.default, weights, v)


def _mask(node: Node, scores: Value) -> Value | None:
    """What is added to the scores, or the places (bool) that take part."""
    if argument(node, "is_causal"):
        return _causal(scores, *scores.shape[-2:])
    mask = argument(node, "attn_mask")
    return None if mask is None else scores.emit.value(mask)


def _causal(scores: Value, rows: Any, columns: Any) -> Value:
    """The places at or before each row, (L, S)."""
    emit = scores.emit
    if isinstance(rows, int) and isinstance(columns, int):
        return emit.constant("causal", torch.ones(rows, columns, dtype=torch.bool).tril())
    query, key = (emit.call(aten.arange.default, size) for size in (rows, columns))
    return emit.call(aten.ge.Tensor, emit.call(aten.unsqueeze.default, query, 1), key)


def _masked_softmax(scores: Value, mask: Value | None) -> Value:
    if mask is None:
        return _softmax(scores)
    if mask.fake.dtype != torch.bool:
        return _softmax(scores + mask)
    # Not -inf: a row without any key would be nan, where attention gives zeros.
    weights = _softmax(scores.where(mask, torch.finfo(scores.fake.dtype).min))
    return weights.where(mask, 0.0)


def _softmax(scores: Value) -> Value:
    return scores.emit.call(aten.softmax.int, scores, -1)


def _repeated_heads(x: Value, q: Value) -> Value:
    """Every head as often as there are heads of q for it."""
    *leading, heads, length, width = x.shape
    times = q.shape[-3] // heads
    grouped = x.reshape([*leading, heads, 1, length, width])
    sizes = grouped.sizes()
    sizes[-3] = times
    repeated = x.emit.call(aten.expand.default, grouped, sizes)
    return repeated.reshape([*leading, heads * times, length, width])


def _swapped(matrix: Value) -> Value:
    return matrix.permute([*range(matrix.ndim - 2), matrix.ndim - 1, matrix.ndim - 2])


def _written_out_softmax(node: Node, emit: Emitter) -> Value | None:
    """`exp(z) / Σ exp(z)` along one axis."""
    part, whole = arguments(node)[:2]
    if not isinstance(whole, Node) or part.target is not aten.exp.default:
        return None
    if whole.target is not aten.sum.dim_IntList or arguments(whole)[0] is not part:
        return None
    dims = argument(whole, "dim")
    scores = emit.value(arguments(part)[0])
    return emit.call(aten.softmax.int, scores, dims[0]) if len(dims) == 1 and argument(whole, "keepdim") else None


ATTENTION: dict[Any, Rewrite] = {
    aten.scaled_dot_product_attention.default: _attention,
    aten.div.Tensor: _written_out_softmax,
}
