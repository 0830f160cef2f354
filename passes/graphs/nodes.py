"""Access to the parts of an fx node. fx types them as unions that nobody can narrow; here they are `Any`."""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

import torch
from torch.fx import Node

__all__ = ["argument", "arguments", "getitem", "map_nodes", "run_node", "schema_of"]


def arguments(node: Node) -> tuple[Any, ...]:
    """The positional arguments of a node."""
    return node.args


def argument(node: Node, place: int | str) -> Any:
    """The argument at a position, or of a name, in the schema of `node`; else the schema's default, or None."""
    schema = schema_of(node)
    position = place if isinstance(place, int) else [entry.name for entry in schema].index(place)
    if position < len(node.args):
        return node.args[position]
    entry = schema[position]
    return node.kwargs.get(entry.name, entry.default_value if entry.has_default_value() else None)


def schema_of(node: Node) -> list[Any]:
    """The arguments that the operator of a `call_function` node declares."""
    target: Any = node.target
    return target._schema.arguments


def run_node(node: Node, args: Any, kwargs: Any) -> Any:
    """Result of the operator of a `call_function` node on other arguments."""
    target: Any = node.target
    return target(*args, **kwargs)


def map_nodes(structure: Any, function: Callable[[Node], Any]) -> Any:
    """`structure` with every node in it replaced by `function(node)`."""
    return torch.fx.map_arg(structure, function)
