"""Small helpers on fx graphs: tensors behind attributes, activity, replacement."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from passes.graphs.anchors import is_anchored, move_anchors
from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import argument

Rewrite = Callable[[Node, Emitter], "Value | Node | None"]

_CONSTANT_FOR_AUTOGRAD: tuple[Any, ...] = (  # detached, or piecewise constant: the derivative is 0 wherever it exists
    aten.detach.default,
    aten.detach_.default,
    aten.sign.default,
    aten.sgn.default,
    aten.floor.default,
    aten.ceil.default,
    aten.round.default,
    aten.round.decimals,
    aten.trunc.default,
    aten.fix.default,
    aten.heaviside.default,
    aten.floor_divide.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
    aten.rand_like.default,
    aten.randn_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
)


def copied(module: GraphModule) -> GraphModule:
    """The same graph over the same tensors, into which no pass writes; every node keeps its name."""
    copy = deepcopy(module, {id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()})
    for node, new in zip(module.graph.nodes, copy.graph.nodes, strict=True):
        new.name = node.name
    copy.recompile()
    return copy


def tensor_of(module: GraphModule, node: Any) -> torch.Tensor | None:
    """The stored tensor that a `get_attr` node names; None for any other argument."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    return getattr(module, str(node.target))


def calls(module: GraphModule, *targets: Any) -> list[Node]:
    """The `call_function` nodes, in order, restricted to `targets` if any are given."""
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    return [node for node in nodes if node.target in targets] if targets else nodes


def replace(node: Node, by: Value | Node) -> None:
    """All users of `node` read `by`, which takes over its anchors; `node` is erased. Exact: the two are equal."""
    replacement = by.node if isinstance(by, Value) else by
    move_anchors(node, replacement)
    node.replace_all_uses_with(replacement)
    node.graph.erase_node(node)


def rewrite_calls(module: GraphModule, rewrites: dict[Any, Rewrite]) -> int:
    """Offer every call whose target has a rewrite to it; None leaves the node alone."""
    emit, count = Emitter(module), 0
    for node in calls(module):
        rewrite = rewrites.get(node.target)
        if rewrite is None:
            continue
        with emit.inserting_before(node):
            result = rewrite(node, emit)
        if result is not None:
            replace(node, result)
            count += 1
    return count


def erase_unused(module: GraphModule) -> int:
    """Drop pure nodes that nobody reads and no anchor names, and the tensors that only they named."""
    count = 0
    for node in reversed(list(module.graph.nodes)):
        if node.op in ("call_function", "get_attr") and not node.users and not is_anchored(node):
            module.graph.erase_node(node)
            count += 1
    named = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name, _ in list(module.named_buffers()):
        if name not in named:
            delattr(module, name)
    return count


def erase_with_operands(node: Node) -> None:
    """Erase a call that nobody reads and no anchor names, then its operands of which the same is true."""
    if node.users or node.op != "call_function" or is_anchored(node):
        return
    operands = node.all_input_nodes
    node.graph.erase_node(node)
    for operand in operands:
        erase_with_operands(operand)


def carries_floats(node: Node) -> bool:
    """The node makes a floating point or complex tensor, or several results with one among them."""
    return any(tensor.is_floating_point() for tensor in _results(node)) or is_complex(node)


def is_complex(node: Node) -> bool:
    """The node makes a complex tensor, or several results with one among them."""
    return any(tensor.is_complex() for tensor in _results(node))


def touches_complex(node: Node) -> bool:
    """The node makes complex numbers, or reads some."""
    return any(map(is_complex, (node, *node.all_input_nodes)))


def _results(node: Node) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(node.meta.get("val")) if isinstance(leaf, torch.Tensor)]


def _is_view(node: Node) -> bool:
    """The node shows its operand in another shape: indices that are moved on the way to an embedding, for example."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(result.alias_info is not None for result in schema.returns)


def is_constant(node: Any) -> bool:
    """The value depends on stored tensors only."""
    return isinstance(node, Node) and all(ancestor.op != "placeholder" for ancestor in needed_by(node))


def needed_by(node: Node) -> set[Node]:
    """The node, and everything that it is computed from."""
    needed, queue = {node}, [node]
    while queue:
        for operand in queue.pop().all_input_nodes:
            if operand not in needed:
                needed.add(operand)
                queue.append(operand)
    return needed


def is_constant_for_autograd(target: Any) -> bool:
    """The operator ends every way of relevance."""
    return target in _CONSTANT_FOR_AUTOGRAD


def _ends_gradients(node: Node) -> bool:
    """The node is constant for autograd: the sign of a complex number is its direction, and has a slope."""
    rounded = node.target is aten.div.Tensor_mode and argument(node, "rounding_mode") is not None
    constant = node.target in _CONSTANT_FOR_AUTOGRAD and not (node.target is aten.sgn.default and is_complex(node))
    return rounded or constant


def active_nodes(module: GraphModule, sources: Iterable[Node], sink: Node) -> set[Node]:
    """Nodes on a path of floats and views from `sources` to `sink`, ends included; constants of autograd end it."""
    reached = set(sources)
    for node in module.graph.nodes:
        if _ends_gradients(node) or not (carries_floats(node) or _is_view(node)):
            continue
        if any(argument in reached for argument in node.all_input_nodes):
            reached.add(node)
    path = reached & {sink}
    for node in reversed(module.graph.nodes):
        path.update(argument for argument in node.all_input_nodes if node in path and argument in reached)
    return path


def layer_name(node: Node) -> str:
    """The user's name of the layer that a node belongs to ("layer1.0.conv1"), or the node's own."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    names = [path for path, _ in stack.values()]
    return (names[-1] if names else "") or node.name


def layer_type(node: Node) -> str:
    """The class name of the innermost module that a node belongs to, or ""."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    kinds = [kind if isinstance(kind, str) else kind.__name__ for _, kind in stack.values()]
    return kinds[-1].rpartition(".")[2] if kinds else ""


def source_line(node: Node) -> str:
    """The last line of user code on the node's stack: 'resnet.py:102: out += identity'."""
    trace = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip()]
    frames = [(trace[k], trace[k + 1]) for k in range(len(trace) - 1) if trace[k].startswith("File ")]
    frames = [frame for frame in frames if "torch/nn/" not in frame[0]] or frames
    if not frames:
        return "source unknown"
    place, code = frames[-1]
    path, _, rest = place.removeprefix('File "').partition('", line ')
    return f"{path.rpartition('/')[2]}:{rest.partition(',')[0]}: {code}"


def describe_node(node: Node) -> str:
    """Layer, operator, shape and source line: how errors name a node."""
    value = node.meta.get("val")
    shape = "x".join(str(s) for s in value.shape) if isinstance(value, torch.Tensor) else "?"
    operator = operator_name(node)
    return f"{layer_name(node)} ({operator}, output {shape}, {source_line(node)})"


def operator_name(node: Node) -> str:
    """The aten name: `convolution` for aten.convolution.default."""
    target: Any = node.target
    schema = getattr(target, "_schema", None)
    return schema.name.removeprefix("aten::") if schema else str(getattr(target, "__name__", target))
