"""Sizes that depend on numbers.

A stored mask that chooses elements -> the list of their positions: how many there are is then known. What depends on
the numbers of an input is refused.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from passes.graphs.emitter import Emitter, aten
from passes.graphs.graph import calls, describe_node, is_constant, replace
from passes.graphs.nodes import argument, map_nodes
from passes.graphs.shapes import evaluate_shape
from passes.rewrites.decompositions.spellings import stored
from relcompile.errors import CaptureError

_INDEXING: Final = (aten.index.Tensor, aten.index_put.default)


def list_masked(module: GraphModule) -> None:
    """x[:, mask] -> x[:, positions], for every mask that depends on stored tensors only; in place."""
    emit, stale = Emitter(module), set[Node]()
    for node in calls(module, *_INDEXING):
        indices = argument(node, "indices")
        if not any(map(_is_stored_mask, indices)):
            continue
        with emit.inserting_before(node):
            places = [place for index in indices for place in _places(index, emit)]
            listed = emit.call(node.target, node.args[0], places, *node.args[2:])
        stale.add(listed.node)
        replace(node, listed)
    for node in list(module.graph.nodes) if stale else ():
        if node in stale or not stale.isdisjoint(node.all_input_nodes):
            stale.add(node)
            _sized(node)


def refuse_unknown_sizes(module: GraphModule) -> None:
    """Nothing, if the sizes of the outputs follow from those of the inputs.

    Raises:
        CaptureError: they depend on numbers; names the operator that chooses by them.
    """
    outputs = [node for node in module.graph.output_node().all_input_nodes if _has_unknown_size(node)]
    if outputs:
        chooser = next(node for node in module.graph.nodes if node.op == "call_function" and _has_unknown_size(node))
        raise CaptureError(
            f"how many values come out depends on the numbers that go in: {describe_node(chooser)}; choose by a stored "
            "mask, or keep all places and set some of them to a number (torch.where, masked_fill)"
        )


def _has_unknown_size(node: Node) -> bool:
    return bool(free_unbacked_symbols(node.meta["val"]))


def _is_stored_mask(index: Any) -> bool:
    return index is not None and index.meta["val"].dtype == torch.bool and is_constant(index)


def _places(index: Any, emit: Emitter) -> list[Any]:
    """The index, or one list of positions for every axis of a mask."""
    if not _is_stored_mask(index):
        return [index]
    return [emit.constant("places", places) for places in stored(index, emit.module).nonzero(as_tuple=True)]


def _sized(node: Node) -> None:
    """The shape of what is computed from such a value; a size that has become a number stands where it is read."""
    if node.op != "call_function":
        return
    node.meta["val"] = size = evaluate_shape(node)
    for user in list(node.users) if isinstance(size, int) else ():
        user.args, user.kwargs = map_nodes(
            (user.args, user.kwargs), lambda operand: size if operand is node else operand
        )
