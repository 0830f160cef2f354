"""What lies between the explained inputs and the explained output."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from passes.errors import PassError
from passes.graphs.anchors import anchored
from passes.graphs.emitter import Emitter
from passes.graphs.graph import active_nodes
from passes.graphs.nodes import arguments, getitem
from passes.operators.call import Call
from passes.operators.table import describe, refusal


def nodes_named(module: GraphModule, names: tuple[str, ...]) -> list[Node]:
    """The nodes called, or anchored as, `names`, in that order."""
    known = {node.name: node for node in module.graph.nodes} | anchored(module)
    return [known[name] for name in names]


def explained_output(module: GraphModule, position: int) -> Node:
    """The output value at `position`.

    Raises:
        PassError: there is none.
    """
    outputs = arguments(module.graph.output_node())[0]
    if not 0 <= position < len(outputs):
        raise PassError(f"output {position} does not exist: the outputs of the model run from 0 to {len(outputs) - 1}")
    return outputs[position]


def walk_start(module: GraphModule, position: int, place: str | None) -> Node:
    """The value where relevance starts: the one anchored as `place`, or else the output at `position`."""
    return explained_output(module, position) if place is None else anchored(module)[place]


def active_operators(module: GraphModule, names: tuple[str, ...], position: int) -> list[Node]:
    """Every operator on a way from the explained inputs to the explained output, in graph order."""
    sources, sink = nodes_named(module, names), explained_output(module, position)
    active = active_nodes(module, sources, sink)
    return [n for n in module.graph.nodes if n in active and n.op == "call_function" and n not in sources]


def describe_known(emit: Emitter, names: tuple[str, ...], position: int) -> tuple[dict[Node, Call], dict[Node, str]]:
    """The operators that relevance can pass through, and why it cannot pass the others; both in graph order.

    One of several results of an operator that it cannot pass is not listed beside it.
    """
    operators = active_operators(emit.module, names, position)
    active = {*operators, *nodes_named(emit.module, names)}
    described = {node: describe(node, emit, active.__contains__) for node in operators}
    without = {node for node, call in described.items() if call is None}
    results = {node for node in without if node.target is getitem and arguments(node)[0] in without}
    unknown = {node: refusal(node) for node in operators if node in without - results}
    return {node: call for node, call in described.items() if call is not None}, unknown


def describe_active(emit: Emitter, names: tuple[str, ...], position: int) -> dict[Node, Call]:
    """Every operator that relevance can pass through, in graph order; their calls write through `emit`.

    The others lie below the layer that is read, or `AssignRules` has refused them.
    """
    return describe_known(emit, names, position)[0]
