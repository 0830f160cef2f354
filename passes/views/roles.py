"""What an operand is to its sibling: facts of the graph, whoever wrote it, that a composite may ask for.

A softmax that makes nothing but attention weights has that role itself.

statistic   a factor or divisor that the sibling is normalised by
mean        what the sibling is freed of
attention   weights out of a softmax that the sibling is averaged with
gate        out of an activation with f(0) ≠ 0 (a sigmoid), or a divisor: zero at its input is not zero
switch      out of any activation, where the sibling is not: the gate of a gated layer
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

from torch.fx import GraphModule, Node

from passes.operators.activation import ActivationCall
from passes.operators.arithmetic import MatmulCall, ProductCall, QuotientCall, SumCall
from passes.operators.call import Call
from passes.operators.softmax import SoftmaxCall
from passes.views.dominators import nearest_dominators
from passes.views.statistics import statistic_operand

Role: TypeAlias = Literal["statistic", "mean", "attention", "gate", "switch"]
Roles: TypeAlias = Mapping[Role, int]
"""A role -> the position of the operand that has it."""


def roles_of(module: GraphModule, described: Mapping[Node, Call], sources: Collection[Node]) -> dict[Node, Roles]:
    """The roles of the operands of every operator."""
    above = nearest_dominators(described, sources)
    roles = {node: _roles(module, call, above[node], described) for node, call in described.items()}
    weights = [node for node, call in described.items() if isinstance(call, SoftmaxCall)]
    return {**roles, **{node: {"attention": 0} for node in weights if _only_weighs(node, described, roles)}}


def _only_weighs(node: Node, described: Mapping[Node, Call], roles: Mapping[Node, Roles]) -> bool:
    """Every way from here, past what moves and scales values, ends where attention is paid."""
    users = [user for user in node.users if user in described]
    return bool(users) and all(
        "attention" in roles[user] or (_moves(described[user]) and _only_weighs(user, described, roles))
        for user in users
    )


def _roles(module: GraphModule, call: Call, source: Node | None, described: Mapping[Node, Call]) -> Roles:
    found = dict[Role, int]()
    if not isinstance(call, SumCall | ProductCall | QuotientCall | MatmulCall):
        return found
    statistic = None if source is None else statistic_operand(module, call, source, described)
    if statistic is not None:
        found["mean" if isinstance(call, SumCall) else "statistic"] = statistic
    if isinstance(call, SumCall):
        return found
    origins = [_origin(operand, described) for operand in call.operands]
    softmaxes = [isinstance(origin, SoftmaxCall) for origin in origins]
    if sum(softmaxes) == 1:
        found["attention"] = softmaxes.index(True)
    switches = [isinstance(origin, ActivationCall) for origin in origins]
    if sum(switches) == 1:
        found["switch"] = switches.index(True)
    gates = [isinstance(origin, ActivationCall) and not origin.vanishes_at_zero for origin in origins]
    if isinstance(call, QuotientCall):
        found["gate"] = len(call.operands) - 1
    elif sum(gates) == 1:
        found["gate"] = gates.index(True)
    return found


def _origin(operand: Node, described: Mapping[Node, Call]) -> Call | None:
    """The operator that made a value, before it was moved and scaled; None for an explained input."""
    call = described.get(operand)
    while call is not None and _moves(call):
        call = described.get(call.operands[0])
    return call


def _moves(call: Call) -> bool:
    """One value, moved or scaled."""
    return call.kind in ("structure", "scale") and len(call.operands) == 1
