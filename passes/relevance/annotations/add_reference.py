"""What differences are taken from: the forward half computed a second time at a reference input, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import needed_by
from passes.graphs.nodes import map_nodes, run_node
from passes.relevance.protocol.reference import REFERENCE, Zero
from passes.views.active import active_operators, explained_output, nodes_named

REFERENCE_INPUT = "reference"


@final
@dataclass(frozen=True)
class AddReference:
    """Append every operator between the explained inputs and the explained output once more, at the reference.

    A constant reference is one sample for the whole batch, if the batch stays an axis of its own: it then costs
    nothing where a runtime folds expressions of constants, and the time of one sample elsewhere.

    Attributes:
        references: by name of the node that holds an explained input, a tensor that broadcasts to one sample of it
            (batch axis 1), or k samples, of which every k rows of the batch take one each; None for a runtime input
            called `reference`, shaped like the input.
        output: position of the explained output.

    Guarantees: the forward half is untouched; `REFERENCE` of every tensor that depends on the values of the explained
    inputs (not on their sizes alone), and that the output needs, is the node with its value at the reference; of
    everything that does not depend on them it is constant.
    """

    references: Mapping[str, torch.Tensor | None]
    output: int
    name: ClassVar[str] = "add-reference"

    def apply(self, module: GraphModule, /) -> int:
        emit, forward = Emitter(module), [node for node in module.graph.nodes if node.op != "output"]
        sources = nodes_named(module, tuple(self.references))
        dependent = _dependent(module, sources, explained_output(module, self.output))
        several = any(tensor is not None and len(tensor) > 1 for tensor in self.references.values())
        whole = several or _needs_whole_batch(dependent, sources)
        starts = zip(sources, self.references.values(), strict=True)
        copies: dict[Node, Any] = {x: _start(x, tensor, emit, whole_batch=whole) for x, tensor in starts}
        for node in dependent:
            with emit.on_behalf_of(node):
                copies[node] = _copy(node, copies, emit)
        differing = _reading_values(forward, sources)
        for node in forward:
            if node not in differing:
                REFERENCE.note_constant(node)
            elif node in copies:
                REFERENCE.note(node, copies[node])
        return len(copies)


@final
@dataclass(frozen=True)
class TakeFromZero:
    """A method without a reference: the difference of every value is the value itself.

    Attributes:
        sources: names of the explained inputs.
        output: position of the explained output.

    Guarantees: `REFERENCE` of every active value, and of what active operators read beside it, is `Zero()`; the graph
    is untouched.
    """

    sources: tuple[str, ...]
    output: int
    name: ClassVar[str] = "take-from-zero"

    def apply(self, module: GraphModule, /) -> int:
        operators = active_operators(module, self.sources, self.output)
        values = {operand for node in operators for operand in (node, *node.all_input_nodes)}
        values.update(nodes_named(module, self.sources))
        for node in values:
            REFERENCE.note(node, Zero())
        return len(values)


def _start(source: Node, tensor: torch.Tensor | None, emit: Emitter, *, whole_batch: bool) -> Node:
    """The reference of one explained input."""
    if tensor is None:
        return emit.placeholder(REFERENCE_INPUT, source.meta["val"]).node
    x = emit.value(source)
    with emit.on_behalf_of(source):
        constant = emit.constant(REFERENCE_INPUT, tensor.to(x.fake.dtype))
        if len(tensor) > 1:
            rows = x.reshape([-1, len(tensor), *x.shape[1:]])
            every = emit.call(aten.unsqueeze.default, constant, 0).expand_like(rows)
            return every.reshape([-1, *x.shape[1:]]).node
        return (constant.expand_like(x) if whole_batch else _expanded(constant, [1, *x.shape[1:]])).node


def _expanded(value: Value, shape: list[Any]) -> Value:
    return value if list(value.shape) == shape else value.emit.call(aten.expand.default, value, shape)


def _dependent(module: GraphModule, sources: list[Node], sink: Node) -> list[Node]:
    """What the sink needs and what depends on the sources, in graph order; shapes, masks and indices too."""
    reached, needed = set(sources), needed_by(sink)
    for node in module.graph.nodes:
        if node in needed and any(operand in reached for operand in node.all_input_nodes):
            reached.add(node)
    reached.difference_update(sources)
    return [node for node in module.graph.nodes if node in reached and node.op == "call_function"]


def _reading_values(forward: list[Node], sources: list[Node]) -> set[Node]:
    """The tensors whose values depend on values of the sources; what depends on sizes alone cannot differ."""
    reached = set(sources)
    for node in forward:
        if not isinstance(node.meta["val"], torch.SymInt | int) and not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
    return reached


def _needs_whole_batch(dependent: list[Node], sources: list[Node]) -> bool:
    """One sample cannot stand for a batch: it is multiplied into another axis, or meets values of the batch itself."""
    read = {operand for node in dependent for operand in node.all_input_nodes}
    meets = any(_has_batch(node.meta["val"]) for node in read.difference(dependent, sources))
    leaves = [leaf for node in dependent for leaf in pytree.tree_leaves(node.meta["val"])]
    sizes = [size for leaf in leaves if isinstance(leaf, torch.Tensor) for size in leaf.shape]
    return meets or any(isinstance(size, torch.SymInt) and not size.node.expr.is_Symbol for size in sizes)


def _has_batch(value: Any) -> bool:
    """The size of the batch, or anything with such an axis."""
    leaves = pytree.tree_leaves(value)
    sizes = [size for leaf in leaves for size in (leaf.shape if isinstance(leaf, torch.Tensor) else (leaf,))]
    return any(isinstance(size, torch.SymInt) for size in sizes)


def _copy(node: Node, copies: Mapping[Node, Any], emit: Emitter) -> Any:
    """The node at the reference: a node, or a number where the size of the batch is known to be 1."""
    args, kwargs = map_nodes((node.args, node.kwargs), lambda operand: copies.get(operand, operand))
    if isinstance(node.meta["val"], torch.SymInt | int):
        sizes, keywords = map_nodes((args, kwargs), lambda operand: operand.meta["val"])
        value = run_node(node, sizes, keywords)
        if isinstance(value, int):
            return value
    return emit.call(node.target, *args, **kwargs).node
