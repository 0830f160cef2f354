"""Shapes and dtypes of values that are not computed: fake tensors, whose free sizes are symbols."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from passes.graphs.nodes import map_nodes, run_node

_OF_DATA: Final = frozenset((torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output))


@dataclass(frozen=True, eq=False)
class Shapes:
    """Results of operators on fake tensors, found once for all calls that are alike.

    Rules write the same few operators on the same few shapes, and torch takes a millisecond for each of them.
    """

    known: dict[Any, Any] = field(default_factory=dict[Any, Any])

    def of(self, node: Node) -> Any:
        """What `evaluate_shape` says of `node`."""
        if not _OF_DATA.isdisjoint(getattr(node.target, "tags", _OF_DATA)):
            return evaluate_shape(node)
        leaves, structure = pytree.tree_flatten((node.args, node.kwargs))
        key = node.target, structure, tuple(map(_layout, leaves))
        if key not in self.known:
            self.known[key] = evaluate_shape(node)
        return self.known[key]


def evaluate_shape(node: Node) -> Any:
    """Result of a `call_function` node on the fake tensors of its arguments."""
    args, kwargs = map_nodes((node.args, node.kwargs), lambda n: n.meta["val"])
    mode = detect_fake_mode((args, kwargs)) or fake_mode(node.graph)  # arithmetic on sizes has no tensor operand
    # Without the Python dispatcher some operators run C++ code that turns the symbolic batch into a number.
    with mode, enable_python_dispatcher(), torch.no_grad():
        return run_node(node, args, kwargs)


def fake_mode(graph: Graph) -> Any:
    """Where the fake tensors of a graph belong."""
    mode = detect_fake_mode([n.meta["val"] for n in graph.find_nodes(op="placeholder") if "val" in n.meta])
    if mode is None:
        raise ValueError("the graph has no inputs with shapes")
    return mode


def _layout(argument: Any) -> Any:
    """What the result depends on: all of a tensor but its data; numbers are told from their equals of other types."""
    value = argument.meta["val"] if isinstance(argument, Node) else argument
    if isinstance(value, torch.Tensor):
        return *map(_size, (*value.shape, *value.stride())), value.dtype, value.device
    return type(value), repr(value)


def _size(size: Any) -> Any:
    return size if isinstance(size, int) else size.node.expr
