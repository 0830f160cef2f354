"""`--rule auto`: which rule suits a network, by what is found in its graph. The measurements are in docs/rules.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Final

from torch.fx import GraphModule, Node

from passes.graphs.graph import calls, operator_name
from passes.graphs.nodes import argument

AUTO: Final = "auto"
_PRODUCTS: Final = frozenset(("matmul", "bmm", "baddbmm", "einsum", "mul"))
_MOVES: Final = frozenset(
    ("dropout", "_to_copy", "to", "type_as", "clone", "expand", "view", "reshape", "transpose", "permute", "unsqueeze")
)
_CONVOLUTIONS: Final = frozenset(("conv1d", "conv2d", "conv3d", "convolution"))


@dataclass(frozen=True)
class Choice:
    """A rule, and what in the graph speaks for it.

    Attributes:
        rule: its name.
        why: in one clause.
    """

    rule: str
    why: str


@dataclass(frozen=True)
class _Structure:
    """A sort of network: how it is recognised, and the rule for it."""

    found: Callable[[GraphModule, Set[str]], bool]
    choice: Choice


def _attends(module: GraphModule, names: Set[str]) -> bool:
    return "scaled_dot_product_attention" in names or any(
        _weighs(node) for node in calls(module) if operator_name(node) in ("softmax", "_softmax")
    )


def _weighs(node: Node) -> bool:
    """The value is a factor, perhaps after it was moved."""
    users = [(user, operator_name(user)) for user in node.users if user.op == "call_function"]
    return any(name in _PRODUCTS or (name in _MOVES and _weighs(user)) for user, name in users)


def _recurs(module: GraphModule, _names: Set[str]) -> bool:
    """What a weight makes of a value comes back to the same weight: the cells of a recurrent network, step by step."""
    uses = defaultdict[Node, list[Node]](list)
    for node in calls(module):
        if operator_name(node) == "linear":
            uses[argument(node, "weight")].append(node)
    return any(nodes[-1] in _behind(nodes[0], until=nodes[-1]) for nodes in uses.values() if len(nodes) > 1)


def _behind(start: Node, until: Node) -> set[Node]:
    """What depends on `start`, up to the position of `until` in the graph."""
    behind = {start}
    node = start
    while node is not until:
        node = node.next
        if not behind.isdisjoint(node.all_input_nodes):
            behind.add(node)
    return behind


def _is_narrow(module: GraphModule, _names: Set[str]) -> bool:
    """One channel at a time."""
    found = [node for node in calls(module) if operator_name(node) in _CONVOLUTIONS]
    return any(argument(node, "groups") not in (None, 1) and _channels(node) == 1 for node in found)


def _channels(convolution: Node) -> int:
    """Input channels of one group."""
    weight = argument(convolution, "weight")
    return int(weight.meta["val"].shape[1])


def _has_shortcuts(module: GraphModule, names: Set[str]) -> bool:
    """Values of a convolutional network are added to each other, or laid beside each other."""
    sums = [node for node in calls(module) if operator_name(node) in ("add", "add_", "cat")]
    return not names.isdisjoint(_CONVOLUTIONS) and any(
        sum(operand.op == "call_function" for operand in node.all_input_nodes) > 1 for node in sums
    )


def _always(_module: GraphModule, _names: Set[str]) -> bool:
    return True


_STRUCTURES: Final = (
    _Structure(_attends, Choice("attnlrp", "it pays attention (a softmax weighs values)")),
    _Structure(_recurs, Choice("attnlrp", "it is recurrent, and the gates of its cells are constants")),
    _Structure(_is_narrow, Choice("gamma=0.1", "it has depthwise convolutions, in which z+ and epsilon fail")),
    _Structure(_has_shortcuts, Choice("gamma=0.1", "it is convolutional, with shortcuts")),
    _Structure(_always, Choice("epsilon", "it is a plain network without shortcuts or attention")),
)
STAND_IN: Final = "epsilon"  # for questions before there is a graph: no choice takes bounds, patterns or a reference


def choice_for(module: GraphModule) -> Choice:
    """The rule for a captured graph: the first structure that is found in it."""
    names = {operator_name(node) for node in calls(module)}
    return next(structure.choice for structure in _STRUCTURES if structure.found(module, names))
