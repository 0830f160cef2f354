"""What an operand is to its sibling: facts of the graph, whoever wrote it, that a composite may ask for.

A softmax that makes nothing but attention weights has that role itself.

statistic   a factor or divisor that the sibling is normalised by
mean        what the sibling is freed of
attention   weights out of a softmax that the sibling is averaged with
gate        out of an activation with f(0) ≠ 0 (a sigmoid), a divisor, or the g of an activation v g(v) that is written
            out: zero at its input is not zero
switch      out of any activation, where the sibling is not: the gate of a gated layer
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, TypeAlias, cast

from torch.fx import GraphModule, Node

from passes.operators.activation import ActivationCall
from passes.operators.arithmetic import MatmulCall, ProductCall, QuotientCall, SumCall
from passes.operators.call import Call
from passes.operators.softmax import SoftmaxCall
from passes.views.dominators import nearest_dominators, operators_behind
from passes.views.statistics import statistic_operand

Role: TypeAlias = Literal["statistic", "mean", "attention", "gate", "switch"]
Roles: TypeAlias = Mapping[Role, int]
"""A role -> the position of the operand that has it."""
_POINTWISE: Final = ("activation", "scale", "shift", "sum", "product")


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
    if not isinstance(call, SumCall | ProductCall | QuotientCall | MatmulCall):
        return {}
    statistic = None if source is None else statistic_operand(module, call, source, described)
    if isinstance(call, SumCall):
        return _found(mean=statistic)
    origins = [_origin(operand, described) for operand in call.operands]
    activations = [isinstance(origin, ActivationCall) for origin in origins]
    return _found(
        statistic=statistic,
        attention=_only([isinstance(origin, SoftmaxCall) for origin in origins]),
        switch=_only(activations),
        gate=_gate(call, source, described, origins),
    )


def _found(**positions: int | None) -> Roles:
    """Without those that no operand has."""
    return cast("Roles", {role: position for role, position in positions.items() if position is not None})


def _only(facts: Sequence[bool]) -> int | None:
    """Position of the one that is true."""
    return facts.index(True) if sum(facts) == 1 else None


def _gate(
    call: Call, source: Node | None, described: Mapping[Node, Call], origins: Sequence[Call | None]
) -> int | None:
    if isinstance(call, QuotientCall):
        return len(call.operands) - 1
    lifted = _only([isinstance(origin, ActivationCall) and not origin.vanishes_at_zero for origin in origins])
    return _own_gate(call, source, described) if lifted is None else lifted


def _own_gate(call: Call, source: Node | None, described: Mapping[Node, Call]) -> int | None:
    """In an activation that is written out, v g(v), the factor g: what is left is the secant g(v)."""
    whole = [source is not None and _scales(operand, source, described) for operand in call.operands]
    signal = _only(whole)
    if signal is None or source is None or not isinstance(call, ProductCall):
        return None
    return 1 - signal if _is_pointwise(call.operands[1 - signal], source, described) else None


def _scales(operand: Node, source: Node, described: Mapping[Node, Call]) -> bool:
    """The operand is the source times numbers."""
    while operand is not source and operand in described and described[operand].kind == "scale":
        (operand,) = described[operand].operands
    return operand is source


def _is_pointwise(operand: Node, source: Node, described: Mapping[Node, Call]) -> bool:
    """Every element of the operand is computed from the element of the source at its place."""
    shape = str(source.meta["val"].shape)
    return operand is not source and all(
        described[node].kind in _POINTWISE and str(node.meta["val"].shape) == shape
        for node in operators_behind(source, operand, described)
    )


def _origin(operand: Node, described: Mapping[Node, Call]) -> Call | None:
    """The operator that made a value, before it was moved and scaled; None for an explained input."""
    call = described.get(operand)
    while call is not None and _moves(call):
        call = described.get(call.operands[0])
    return call


def _moves(call: Call) -> bool:
    """One value, moved or scaled."""
    return call.kind in ("structure", "scale") and len(call.operands) == 1
