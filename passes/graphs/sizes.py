"""Sizes that the caller chooses: the batch, and free axes beside it (the length of a text, the side of an image)."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.fx import Graph, Node, Proxy
from torch.fx.proxy import GraphAppendingTracer
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

_SIZE: Final[Any] = torch.ops.aten.sym_size.int


def same_size(a: Any, b: Any) -> bool:
    """The two are equal, whatever the caller chooses; `==` would decide it for the examples, and for good."""
    return a == b if isinstance(a, int) and isinstance(b, int) else str(a) == str(b)


def is_of_batch(size: Any, graph: Graph) -> bool:
    """The size holds the number of samples, perhaps as a factor (N heads)."""
    return isinstance(size, torch.SymInt) and not _batch(graph).free_symbols.isdisjoint(size.node.expr.free_symbols)


def batch_factor(size: Any, graph: Graph) -> Any:
    """The K of an axis of K N elements."""
    factor = size.node.expr / _batch(graph)
    return int(factor) if factor.is_Integer else size // graph.find_nodes(op="placeholder")[0].meta["val"].shape[0]


def write_size(size: Any, graph: Graph) -> Node:
    """Nodes that compute a symbolic number from the sizes of the inputs; where the graph inserts nodes."""
    expression, symbols = size.node.expr, dict[Any, Any]()
    tracer = GraphAppendingTracer(graph)
    for node in graph.find_nodes(op="placeholder"):
        for axis, part in enumerate(node.meta["val"].shape):
            known = part.node.expr if isinstance(part, torch.SymInt) else None
            if known in expression.free_symbols - symbols.keys():
                symbols[known] = Proxy(graph.call_function(_SIZE, (node, axis)), tracer)
    return sympy_interp(PythonReferenceAnalysis, symbols, expression).node


def _batch(graph: Graph) -> Any:
    return graph.find_nodes(op="placeholder")[0].meta["val"].shape[0].node.expr
