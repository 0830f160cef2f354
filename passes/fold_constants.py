"""A small expression of stored tensors only -> one stored tensor.

Expressions of more than `limit` elements stay: a runtime folds them when it loads the file, and the file holds
every weight once (W⁺ and flipped kernels are expressions of W).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch.fx import GraphModule, Node

from passes.emitter import Emitter
from passes.graph import calls, erase_unused, replace, tensor_of
from passes.nodes import map_nodes, run_node


@final
@dataclass(frozen=True)
class FoldConstants:
    """Evaluate constant expressions of at most `limit` elements. Guarantees: equal numbers, bit for bit."""

    limit: int = 4096
    name: ClassVar[str] = "fold-constants"

    def apply(self, module: GraphModule, /) -> int:
        emit, count = Emitter(module), 0
        for node in calls(module):
            if not self._is_foldable(node, module):
                continue
            with torch.no_grad(), emit.inserting_before(node):
                args, kwargs = map_nodes((node.args, node.kwargs), lambda n: tensor_of(module, n))
                value: torch.Tensor = run_node(node, args, kwargs)
                replace(node, emit.constant(node.name, value.contiguous()))
            count += 1
        if count:
            erase_unused(module)
        return count

    def _is_foldable(self, node: Node, module: GraphModule) -> bool:
        value = node.meta.get("val")
        constants = [tensor_of(module, argument) for argument in node.all_input_nodes]
        if not isinstance(value, torch.Tensor) or not constants or any(c is None for c in constants):
            return False
        # Only now: asking a value that depends on the input for its size would fix the batch.
        return value.numel() <= self.limit
