"""Nodes that nobody reads, and tensors that no node names -> nothing."""

from __future__ import annotations

from typing import ClassVar, final

from torch.fx import GraphModule

from passes.graphs.graph import erase_unused


@final
class RemoveDeadCode:
    """Drop unread pure nodes and unnamed tensors. Guarantees: equal numbers, bit for bit."""

    name: ClassVar[str] = "remove-dead-code"

    def apply(self, module: GraphModule, /) -> int:
        return erase_unused(module)
