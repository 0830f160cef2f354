"""Layers by the user's own names: where a layer's output is in the graph."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch.fx import GraphModule, Node

from passes.errors import UnknownLayerError
from passes.graphs.graph import active_nodes, describe_node, is_complex
from passes.operators.affine import ConvolutionCall
from passes.operators.table import is_a


def layer_output(module: GraphModule, name: str, sources: list[Node], sink: Node) -> Node:
    """The last node of layer `name` that lies between `sources` and `sink`.

    Raises:
        UnknownLayerError: no such layer, one that is used several times, one that nothing flows through, or one whose
            output is complex.
    """
    uses = _uses(active_nodes(module, sources, sink), module)
    found = uses.get(name, [])
    if any(map(is_complex, found)):
        raise UnknownLayerError(
            f"the output of layer {name!r} is complex, and relevance is that of real numbers: name a layer before or "
            f"behind it\n  {describe_node(found[0])}"
        )
    if len(found) == 1:
        return found[0]
    names = ", ".join(uses)
    if not found:
        raise UnknownLayerError(f"no layer called {name!r} lies between the input and the output; there are: {names}")
    places = "\n".join(f"  {describe_node(node)}" for node in found)
    raise UnknownLayerError(f"layer {name!r} is used {len(found)} times:\n{places}\nname one of: {names}")


def last_feature_map(module: GraphModule, sources: list[Node], sink: Node) -> Node:
    """The last node that has the spatial size of the output of the last convolution that sees more than one place.

    Raises:
        UnknownLayerError: there is no such convolution.
    """
    active = active_nodes(module, sources, sink)
    nodes = [node for node in module.graph.nodes if node in active and node.op == "call_function"]
    maps = [node for node in nodes if is_a(node, ConvolutionCall) and any(size != 1 for size in _places(node))]
    if not maps:
        raise UnknownLayerError("no convolution with a spatial output lies between the input and the output")
    behind = active_nodes(module, maps[-1:], sink)
    return [node for node in nodes if node in behind and _places(node) == _places(maps[-1])][-1]


def _uses(active: set[Node], module: GraphModule) -> dict[str, list[Node]]:
    """The last node of every call of every layer, by the layer's name."""
    last = defaultdict[str, dict[str, Node]](dict)
    for node in module.graph.nodes:
        stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
        for call, (name, _) in stack.items() if node in active and node.op == "call_function" else ():
            last[name][call] = node  # torch.export tells the calls of one layer apart
    return {name: list(calls.values()) for name, calls in last.items() if name}


def _places(node: Node) -> tuple[Any, ...]:
    """Sizes of the axes behind batch and channels; empty for several results."""
    return tuple(getattr(node.meta.get("val"), "shape", ())[2:])
