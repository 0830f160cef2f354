"""Zeros that surround a part of a value -> nothing: the adjoints of slices, where all slices or one are read.

1. pad(m) W -> m W', the rows of W that m meets                    one of the four gates of an LSTM has relevance
2. pad(a) + pad(b) + ... -> cat(a, b, ...), where they tile an axis   queries, keys and values; the steps of a series

Guarantees: equal numbers, but for the sign of zeros.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, final

from torch.fx import GraphModule, Node

from passes.graphs.anchors import is_read_once
from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite, erase_unused, is_constant, rewrite_calls
from passes.graphs.nodes import argument, arguments
from passes.graphs.sizes import same_size


@final
class SkipPadding:
    """Leave out the zeros that products and sums read."""

    name: ClassVar[str] = "skip-padding"

    def apply(self, module: GraphModule, /) -> int:
        return rewrite_calls(module, _REWRITES) + erase_unused(module)


class _Part(NamedTuple):
    """A value at a place of an axis, between zeros."""

    value: Node
    axis: int
    start: int
    end: int
    whole: int


def _part(node: Any) -> _Part | None:
    """What a node pads along one axis of known size."""
    if not isinstance(node, Node) or node.target is not aten.constant_pad_nd.default or argument(node, "value"):
        return None
    inner, shape = argument(node, "self"), node.meta["val"].shape
    amounts = argument(node, "pad")
    padded = sorted({position // 2 for position, amount in enumerate(amounts) if amount})
    if len(padded) != 1 or min(amounts) < 0:
        return None
    axis, before = len(shape) - 1 - padded[0], amounts[2 * padded[0]]
    size = inner.meta["val"].shape[axis]
    return _Part(inner, axis, before, before + size, shape[axis]) if isinstance(size, int) else None


def _product_of_part(node: Node, emit: Emitter) -> Value | None:
    padded, weight = arguments(node)
    part = _part(padded)
    if part is None or part.axis != padded.meta["val"].dim() - 1 or not is_constant(weight):
        return None
    rows = emit.value(weight)
    return emit.call(aten.matmul.default, part.value, rows.slice(0, part.start, part.end)) if rows.ndim == 2 else None


def _sum_of_parts(node: Node, emit: Emitter) -> Value | None:
    """A whole sum, not a part of one."""
    if any(reader.target is aten.add.Tensor for reader in node.users) and is_read_once(node):
        return None
    summands = _summands(node)
    parts = [_part(summand) for summand in summands]
    if any(part is None for part in parts) or not all(_has_shape_of(summand, node) for summand in summands):
        return None
    known = sorted((part for part in parts if part is not None), key=lambda part: part.start)
    if len({part.axis for part in known}) != 1:
        return None
    edges = [0, *(part.end for part in known)]
    if [part.start for part in known] != edges[:-1] or edges[-1] != known[0].whole:
        return None
    return emit.call(aten.cat.default, [part.value for part in known], known[0].axis)


def _has_shape_of(summand: Node, total: Node) -> bool:
    """It is not broadcast."""
    own, whole = summand.meta["val"].shape, total.meta["val"].shape
    return len(own) == len(whole) and all(map(same_size, own, whole))


def _summands(node: Node) -> list[Any]:
    found, queue = list[Any](), [*arguments(node)] if not node.kwargs else [node]
    while queue:
        summand: Any = queue.pop()
        is_sum = isinstance(summand, Node) and summand.target is aten.add.Tensor and not summand.kwargs
        if is_sum and is_read_once(summand):
            queue += arguments(summand)
        else:
            found.append(summand)
    return found


_REWRITES: dict[Any, Rewrite] = {aten.matmul.default: _product_of_part, aten.add.Tensor: _sum_of_parts}
