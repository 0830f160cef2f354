"""A value that is only scaled, shifted and added -> the terms it is the sum of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from passes.graphs.anchors import is_read_once
from passes.graphs.emitter import aten
from passes.graphs.graph import tensor_of
from passes.graphs.nodes import argument
from passes.operators.arithmetic import summand_signs

_SUMS: tuple[Any, ...] = (aten.add.Tensor, aten.sub.Tensor)
_COMBINATIONS: tuple[Any, ...] = (*_SUMS, aten.mul.Tensor, aten.div.Tensor, aten.neg.default)


@dataclass(frozen=True, eq=False)
class Term:
    """`factor * node`; a constant is `factor` alone. Factors are float64 and broadcast to the sum."""

    node: Node | None
    factor: torch.Tensor


def sums(module: GraphModule) -> list[Node]:
    """The values that are combinations of others, and that no other combination takes up whole."""
    return [node for node in module.graph.nodes if _operands(module, node) and not _is_taken_up(module, node)]


def terms_of(module: GraphModule, node: Node) -> list[Term]:
    """What `node` is the sum of, in the order of the model; a node that others read too is a term of its own."""
    terms = list[Term]()
    for term in _operands(module, node):
        if term.node is None or not _is_inside(module, term.node):
            terms.append(term)
        else:
            terms += [replace(part, factor=part.factor * term.factor) for part in terms_of(module, term.node)]
    return terms


_ONE = torch.ones((), dtype=torch.float64)


def _is_inside(module: GraphModule, node: Node) -> bool:
    return is_read_once(node) and bool(_operands(module, node))


def _is_taken_up(module: GraphModule, node: Node) -> bool:
    return _is_inside(module, node) and bool(_operands(module, next(iter(node.users))))


def _operands(module: GraphModule, node: Node) -> list[Term]:
    """The terms of a single operator; none if it is no combination with stored constants."""
    if node.target not in _COMBINATIONS or not _keeps_dtype(node):
        return []
    if node.target is aten.neg.default:
        return [Term(argument(node, 0), -_ONE)]
    a, b = (_constant(module, argument(node, k)) for k in range(2))
    if node.target in _SUMS:
        alpha = summand_signs(node)[1]
        first = Term(argument(node, 0), _ONE) if a is None else Term(None, a)
        second = Term(argument(node, 1), _ONE * alpha) if b is None else Term(None, b * alpha)
        return [] if a is not None and b is not None else [first, second]
    if b is not None and a is None:
        return [Term(argument(node, 0), 1 / b if node.target is aten.div.Tensor else b)]
    if a is not None and b is None and node.target is aten.mul.Tensor:
        return [Term(argument(node, 1), a)]
    return []


def _constant(module: GraphModule, operand: Any) -> torch.Tensor | None:
    """A number or a stored tensor, in float64."""
    if not isinstance(operand, Node):
        return torch.tensor(operand, dtype=torch.float64)
    tensor = tensor_of(module, operand)
    return None if tensor is None else tensor.double()


def _keeps_dtype(node: Node) -> bool:
    """All operands are of the floating point type of the result, and nothing is rounded."""
    tensors = [n.meta["val"] for n in (node, *node.all_input_nodes)]
    floats = all(isinstance(t, torch.Tensor) and t.is_floating_point() for t in tensors)
    return floats and len({t.dtype for t in tensors}) == 1 and "rounding_mode" not in node.kwargs
