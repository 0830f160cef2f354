"""Which operators belong to a residual block."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Node

from passes.operators.arithmetic import SumCall
from passes.operators.call import Call


def residual_members(described: Mapping[Node, Call]) -> set[Node]:
    """Operators on the branches that a sum joins, between their fork and the sum, and activations of that sum."""
    members = set[Node]()
    behind: dict[Node, frozenset[Node]] = {}  # the operators that a value was computed by
    for node, call in described.items():
        ways = [behind.get(operand, frozenset[Node]()) for operand in call.operands]
        behind[node] = frozenset[Node]().union(*ways, {node})
        if isinstance(call, SumCall):
            members |= ways[0] ^ ways[1]
            members |= {user for user in node.users if user in described and described[user].kind == "activation"}
    return members
