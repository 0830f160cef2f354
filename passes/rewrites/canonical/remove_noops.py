"""y = dropout(x), clone(x), x[:], x.view(x.shape), ... -> uses of y read x."""

from __future__ import annotations

import math
from typing import Any, ClassVar, final

from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter, aten
from passes.graphs.graph import Rewrite, rewrite_calls
from passes.graphs.nodes import argument, arguments
from passes.graphs.sizes import same_size


@final
class RemoveNoops:
    """Remove operators that leave their first operand as it is. Guarantees: equal numbers, bit for bit."""

    name: ClassVar[str] = "remove-noops"

    def apply(self, module: GraphModule, /) -> int:
        return rewrite_calls(module, _REWRITES)


def _first(node: Node, _emit: Emitter) -> Node:
    return arguments(node)[0]


def _if_same_shape(node: Node, _emit: Emitter) -> Node | None:
    x: Any = arguments(node)[0]
    before, after = x.meta["val"], node.meta["val"]
    same = before.dim() == after.dim() and all(map(same_size, before.shape, after.shape))
    return x if same and before.dtype == after.dtype else None


def _if_inference(node: Node, _emit: Emitter) -> Node | None:
    return None if argument(node, "train") else arguments(node)[0]


def _if_window_of_one(node: Node, emit: Emitter) -> Node | None:
    kernel, stride, padding = (argument(node, name) for name in ("kernel_size", "stride", "padding"))
    trivial = set(kernel) == {1} and set(stride or kernel) == {1} and not any(padding)
    return _if_same_shape(node, emit) if trivial else None


def _if_whole_axis(node: Node, _emit: Emitter) -> Node | None:
    start, end, step = (argument(node, name) for name in ("start", "end", "step"))
    whole = not start and (end is None or (isinstance(end, int) and end >= 2**62)) and step == 1
    return arguments(node)[0] if whole else _if_same_shape(node, _emit)


def _if_same_strides(node: Node, emit: Emitter) -> Node | None:
    """Only strides of axes of one element differ, which say nothing (pools of a channels_last image end so)."""
    x, offset = argument(node, 0), argument(node, 3)
    before, after = x.meta["val"], node.meta["val"]
    same = _if_same_shape(node, emit) is not None and not offset
    long = [axis for axis, size in enumerate(after.shape) if size != 1] if same else []
    return x if same and all(str(before.stride(axis)) == str(after.stride(axis)) for axis in long) else None


def _if_unbounded(node: Node, _emit: Emitter) -> Node | None:
    low, high = argument(node, "min"), argument(node, "max")
    return arguments(node)[0] if low in (None, -math.inf) and high in (None, math.inf) else None


_REWRITES: dict[Any, Rewrite] = {
    aten.alias.default: _first,
    aten.clone.default: _first,
    aten.lift_fresh_copy.default: _first,
    aten.dropout.default: _if_inference,
    aten.native_dropout.default: _if_inference,
    aten._to_copy.default: _if_same_shape,
    aten.view.default: _if_same_shape,
    aten.reshape.default: _if_same_shape,
    aten.as_strided.default: _if_same_strides,
    aten.expand.default: _if_same_shape,
    aten._adaptive_avg_pool2d.default: _if_same_shape,
    aten._adaptive_avg_pool3d.default: _if_same_shape,
    aten.avg_pool2d.default: _if_window_of_one,
    aten.avg_pool3d.default: _if_window_of_one,
    aten.max_pool2d.default: _if_window_of_one,
    aten.max_pool3d.default: _if_window_of_one,
    aten.slice.Tensor: _if_whole_axis,
    aten.clamp.default: _if_unbounded,
}


def is_removed(target: Any) -> bool:
    """The operator is left out where it changes nothing."""
    return target in _REWRITES
