"""cat(a, b, c) -> cat(cat(a, b), c) where cat(a, b) is computed anyway.

A DenseNet concatenates all earlier features in every layer. Undone one by one these take a slice for every pair of
layers; chained, a slice for every layer.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter, aten
from passes.graphs.graph import calls, replace
from passes.graphs.nodes import argument


@final
class ChainConcatenations:
    """Read the longest earlier concatenation of the same first operands. Guarantees: equal numbers, bit for bit."""

    name: ClassVar[str] = "chain-concatenations"

    def apply(self, module: GraphModule, /) -> int:
        emit, count = Emitter(module), 0
        known: dict[tuple[Any, ...], Node] = {}
        for node in calls(module, aten.cat.default):
            dim, parts = argument(node, "dim"), tuple(argument(node, "tensors"))
            prefix = next((k for k in range(len(parts) - 1, 1, -1) if (dim, *parts[:k]) in known), None)
            if prefix is None:
                known[dim, *parts] = node
                continue
            with emit.inserting_before(node):
                chained = emit.call(aten.cat.default, [known[dim, *parts[:prefix]], *parts[prefix:]], dim)
            replace(node, chained)
            known[dim, *parts] = chained.node
            count += 1
        return count
