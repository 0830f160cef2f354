"""What lies between the explained inputs and the explained output."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from passes.errors import PassError, UnsupportedOperatorError
from passes.graphs.emitter import Emitter
from passes.graphs.graph import active_nodes, describe_node
from passes.graphs.nodes import arguments
from passes.operators.call import Call
from passes.operators.table import describe


def nodes_named(module: GraphModule, names: tuple[str, ...]) -> list[Node]:
    """The nodes called `names`, in that order."""
    known = {node.name: node for node in module.graph.nodes}
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


def describe_active(emit: Emitter, names: tuple[str, ...], position: int) -> dict[Node, Call]:
    """Every operator that relevance passes through, in graph order; their calls write through `emit`."""
    module = emit.module
    sources, sink = nodes_named(module, names), explained_output(module, position)
    active = active_nodes(module, sources, sink)
    operators = [n for n in module.graph.nodes if n in active and n.op == "call_function" and n not in sources]
    described = {node: describe(node, emit, active.__contains__) for node in operators}
    missing = [node for node, call in described.items() if call is None]
    if missing:
        listing = "\n".join(f"  {describe_node(node)}" for node in missing)
        raise UnsupportedOperatorError(
            f"{len(missing)} operators of this model have no relevance rule yet:\n{listing}\n"
            "Replace them by supported operators (`relcompile rules --operators` lists them)."
        )
    return {node: call for node, call in described.items() if call is not None}
