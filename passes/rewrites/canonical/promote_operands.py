"""Operands of several floating point types -> casts in the open."""

from __future__ import annotations

from typing import Any, ClassVar, Final, final

import torch
from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite, rewrite_calls
from passes.graphs.nodes import map_nodes


@final
class PromoteOperands:
    """x₃₂ + y₆₄ -> to₆₄(x₃₂) + y₆₄: what goes back through the cast has the type of x.

    Guarantees: equal numbers, bit for bit; the floating point operands of operators that promote have the type
    of what comes out.
    """

    name: ClassVar[str] = "promote-operands"

    def apply(self, module: GraphModule, /) -> int:
        return rewrite_calls(module, _REWRITES)


def _promoted(node: Node, emit: Emitter) -> Value | None:
    dtype: Any = node.meta["val"].dtype
    values = {x: x.meta["val"] for x in node.all_input_nodes}
    tensors = {x: value for x, value in values.items() if isinstance(value, torch.Tensor)}  # and no sizes
    narrow = [x for x, value in tensors.items() if value.is_floating_point() and value.dim() and value.dtype != dtype]
    if not narrow:
        return None
    cast = {x: emit.call(aten._to_copy.default, x, dtype=dtype).node for x in narrow}
    args, kwargs = map_nodes((node.args, node.kwargs), lambda x: cast.get(x, x))
    return emit.call(node.target, *args, **kwargs)


_REWRITES: Final[dict[Any, Rewrite]] = dict.fromkeys(
    (
        aten.add.Tensor,
        aten.sub.Tensor,
        aten.mul.Tensor,
        aten.div.Tensor,
        aten.cat.default,
        aten.stack.default,
        aten.where.self,
        aten.maximum.default,
        aten.minimum.default,
    ),
    _promoted,
)
