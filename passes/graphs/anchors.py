"""Anchors: names for values of a graph that every rewrite keeps.

Whoever needs a value later (the layer whose relevance is read, say) anchors its node under a name of their own. Until
then the node may be replaced by an equal one, which takes the name over; it is neither dropped nor merged with its
neighbours, and the runner checks that after every pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.fx import GraphModule, Node

from passes.errors import InvariantError

_KEY = "anchors"  # in the graph module's meta: node names by anchor


def add_anchor(module: GraphModule, anchor: str, node: Node) -> None:
    """Name the value of `node`; a node may have several anchors."""
    module.meta[_KEY] = {**_table(module), anchor: node.name}


def anchored(module: GraphModule) -> dict[str, Node]:
    """The nodes by anchor.

    Raises:
        InvariantError: an anchor has lost its node.
    """
    table, known = _table(module), {node.name: node for node in module.graph.nodes}
    lost = [f"{anchor} ({name})" for anchor, name in table.items() if name not in known]
    if lost:
        raise InvariantError(f"anchors without a node: {', '.join(lost)}")
    return {anchor: known[name] for anchor, name in table.items()}


def is_anchored(node: Node) -> bool:
    """Somebody needs this very value later."""
    return node.name in _table(node.graph.owning_module).values()


def is_read_once(node: Node) -> bool:
    """One node reads the value, and nobody else will: rewriting both may do without it."""
    return len(node.users) == 1 and not is_anchored(node)


def move_anchors(node: Node, to: Node) -> None:
    """The anchors of `node` name the equal value of `to`."""
    module = node.graph.owning_module
    if module is not None and is_anchored(node):
        module.meta[_KEY] = {anchor: to.name if name == node.name else name for anchor, name in _table(module).items()}


def drop_anchors(module: GraphModule, anchors: Iterable[str]) -> None:
    """Nobody needs the values called `anchors` any longer."""
    gone = set(anchors)
    module.meta[_KEY] = {anchor: name for anchor, name in _table(module).items() if anchor not in gone}


def _table(module: Any) -> dict[str, str]:
    return {} if module is None else module.meta.get(_KEY, {})
