"""Canonical graph -> its affine layers, and the ReLU behind each of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch.fx import GraphModule, Node

from passes.graphs.graph import calls, is_constant, layer_name
from passes.graphs.nodes import argument
from passes.operators.activation import Pointwise
from passes.operators.affine import AffineCall
from passes.operators.table import is_a, views_of


@dataclass(frozen=True, eq=False)
class AffineLayer:
    """An affine operator that reads the input and has a weight of its own.

    Attributes:
        name: the user's layer name.
        node: the operator.
        relu: the ReLU (or clamp from 0 upwards) that its output goes through, after what shifts, scales, adds or
            reshapes it element by element; None if it goes elsewhere.
    """

    name: str
    node: Node
    relu: Node | None


def affine_layers(module: GraphModule) -> list[AffineLayer]:
    """All affine layers, in graph order."""
    nodes = [node for node in calls(module) if is_a(node, AffineCall)]
    own = [node for node in nodes if is_constant(argument(node, "weight")) and not is_constant(node)]
    return [AffineLayer(layer_name(node), node, _relu_behind(node)) for node in own]


def _relu_behind(node: Node) -> Node | None:
    """The nearest one."""
    queue = [node]
    for current in queue:
        for user in current.users:
            if _rectifies(user):
                return user
            if _keeps_elements(user, current) and user not in queue:
                queue.append(user)
    return None


def _rectifies(node: Node) -> bool:
    functions = [view for view in views_of(node) if isinstance(view, Pointwise)]
    return any(function.bounds is not None and function.bounds(node)[0] == 0.0 for function in functions)


def _keeps_elements(user: Node, node: Node) -> bool:
    """Every element of `user` comes from the element of `node` at the same place, in row-major order."""
    return any(view.keeps_places for view in views_of(user)) and _sizes(user) == _sizes(node)


def _sizes(node: Node) -> tuple[str, int]:
    """The batch, which is a symbol, and the number of elements of a sample."""
    shape = node.meta["val"].shape
    return str(shape[0]), prod(shape[1:])
