"""Selections along one axis (sort, topk, median, kthvalue, max, min) -> positions, and a gather of the values there."""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any, Final, TypeAlias

from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import argument

Positions: TypeAlias = Callable[[Node, Value], Value | None]


def selected(source: Node, result: int, emit: Emitter) -> Value | None:
    """Result 0, the values, or 1, their positions, of a selection; None where it takes from several samples.

    A value is a copy of the element that is selected, so all relevance is that element's. Of equal elements the
    first is selected, in every runtime; torch promises that of stable sorts, max and min alone.
    """
    x = emit.value(argument(source, "self"))
    if x.ndim == 0 or emit.is_of_batch(x.shape[argument(source, "dim")]):
        return None
    positions = SELECTIONS[source.target](source, x)
    if positions is None:
        return None
    found = positions if result else emit.call(aten.gather.default, x, argument(source, "dim"), positions)
    one = source.target in _ONE and not argument(source, "keepdim")
    return emit.call(aten.squeeze.dims, found, [argument(source, "dim")]) if one else found


def as_sort(node: Node, emit: Emitter) -> Value:
    """A stable order in the operator that can be exported: what becomes of it, TopK, is stable, and so is torch's."""
    x, dim, descending = (argument(node, name) for name in ("self", "dim", "descending"))
    return emit.call(getitem, emit.call(aten.sort.default, x, dim, descending), 1)


def _best(target: Any) -> Positions:
    return lambda node, x: x.emit.call(target, x, argument(node, "dim"), True)


def _order(node: Node, x: Value, *, descending: bool) -> Value:
    return x.emit.call(aten.argsort.stable, x, stable=True, dim=argument(node, "dim"), descending=descending)


def _sorted(node: Node, x: Value) -> Value:
    return _order(node, x, descending=argument(node, "descending"))


def _top(node: Node, x: Value) -> Value:
    order = _order(node, x, descending=argument(node, "largest"))
    return order.slice(argument(node, "dim"), 0, argument(node, "k"))


def _kth(node: Node, x: Value) -> Value:
    k = argument(node, "k")
    return _order(node, x, descending=False).slice(argument(node, "dim"), k - 1, k)


def _middle(node: Node, x: Value) -> Value | None:
    """The lower of two in the middle."""
    size = x.shape[argument(node, "dim")]
    if not isinstance(size, int):
        return None
    lower = (size - 1) // 2
    return _order(node, x, descending=False).slice(argument(node, "dim"), lower, lower + 1)


# Those that leave one element of the axis. The gradient of max goes to one winner, that of amax to all that are equal.
_ONE: Final[dict[Any, Positions]] = {
    aten.max.dim: _best(aten.argmax.default),
    aten.min.dim: _best(aten.argmin.default),
    aten.median.dim: _middle,
    aten.kthvalue.default: _kth,
}
SELECTIONS: Final[dict[Any, Positions]] = {
    **_ONE,
    aten.sort.default: _sorted,
    aten.sort.stable: _sorted,
    aten.topk.default: _top,
}
