"""An expression of stored tensors only -> one stored tensor, if the file does not grow by it.

1. expressions of at most `limit` elements
2. larger ones that take the place of a stored tensor of their size which nobody else reads (W ⊙ A, a pattern A)

Other large expressions stay: a runtime folds them when it loads the file, and the file holds every weight once (W⁺ and
flipped kernels are expressions of W).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter
from passes.graphs.graph import calls, erase_unused, replace, tensor_of
from passes.graphs.nodes import map_nodes, run_node


@final
@dataclass(frozen=True)
class FoldConstants:
    """Evaluate small constant expressions, and those that replace what they are made of.

    Guarantees: equal numbers, bit for bit.
    """

    limit: int = 4096
    name: ClassVar[str] = "fold-constants"

    def apply(self, module: GraphModule, /) -> int:
        emit, count = Emitter(module), 0
        readers = _readers(module)
        for node in calls(module):
            if not self._is_foldable(node, module, readers):
                continue
            with torch.no_grad(), _one_thread(), emit.inserting_before(node):
                args, kwargs = map_nodes((node.args, node.kwargs), lambda n: tensor_of(module, n))
                value: torch.Tensor = run_node(node, args, kwargs)
                replace(node, emit.constant(f"{node.name}_folded", value.contiguous()))
            count += 1
        if count:
            erase_unused(module)
        return count

    def _is_foldable(self, node: Node, module: GraphModule, readers: Counter[str]) -> bool:
        value = node.meta.get("val")
        constants = [tensor_of(module, argument) for argument in node.all_input_nodes]
        if not isinstance(value, torch.Tensor) or not constants or any(c is None for c in constants):
            return False
        # Only now: asking a value that depends on the input for its size would fix the batch.
        return value.numel() <= self.limit or any(
            tensor.shape == value.shape and tensor.dtype == value.dtype and readers[str(operand.target)] == 1
            for operand, tensor in zip(node.all_input_nodes, constants, strict=True)
            if tensor is not None
        )


@contextmanager
def _one_thread() -> Generator[None]:
    """Sums in one order: equal models have equal constants, however many threads there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _readers(module: GraphModule) -> Counter[str]:
    """How often each stored tensor is read, whoever names it."""
    attributes = module.graph.find_nodes(op="get_attr")
    return Counter(str(node.target) for node in attributes for _ in node.users)
