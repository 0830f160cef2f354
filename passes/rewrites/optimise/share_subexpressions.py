"""Two pure nodes with equal operator and arguments -> one."""

from __future__ import annotations

from typing import Any, ClassVar, final

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from passes.graphs.graph import replace


@final
class ShareSubexpressions:
    """Every value is computed once. Guarantees: equal numbers, bit for bit; the first of two equal nodes stays."""

    name: ClassVar[str] = "share-subexpressions"

    def apply(self, module: GraphModule, /) -> int:
        first: dict[Any, Node] = {}
        count = 0
        for node in module.graph.nodes:
            if node.op not in ("call_function", "get_attr") or not _is_pure(node):
                continue
            key = (node.op, node.target, _key(node.args), _key(node.kwargs))
            known = first.setdefault(key, node)
            if known is not node:
                replace(node, known)
                count += 1
        return count


def _is_pure(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ())


def _key(argument: Any) -> Any:
    """A hashable form that tells 1 from 1.0 and True, as the printed graph does."""
    leaves, structure = pytree.tree_flatten(argument)
    return structure, tuple(leaf if isinstance(leaf, Node) else repr(leaf) for leaf in leaves)
