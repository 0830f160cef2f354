"""Which ways from the explained output to the inputs lead through given places."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from torch.fx import Node

from passes.operators.call import Call


class _Gate(NamedTuple):
    """A place, with those that lie neither above nor below it: all ways lead through one of them, or are cut."""

    ahead: frozenset[Node]
    """At or above one of them: what is here may still come through."""
    passed: frozenset[Node]
    """At or below one of them."""


@dataclass(frozen=True)
class Ways:
    """The ways that are not cut."""

    gates: tuple[_Gate, ...]

    def lead(self, node: Node, operand: Node) -> bool:
        """One of them goes from `node` down to its operand."""
        return all(node in gate.passed or operand in gate.ahead for gate in self.gates)


ALL_WAYS: Final = Ways(())


def ways_through(described: Mapping[Node, Call], places: Collection[Node]) -> Ways:
    """The ways that lead through all of `places`, one after the other; of places side by side through one."""
    below = dict[Node, frozenset[Node]]()
    for node, call in described.items():
        below[node] = frozenset[Node]().union(*(below.get(o, frozenset[Node]()) for o in call.operands), call.operands)
    gates = list[_Gate]()
    for place in places:
        gate = {other for other in places if place not in below[other] and other not in below[place]}
        ahead = {node for node, lower in below.items() if node in gate or not gate.isdisjoint(lower)}
        gates.append(_Gate(frozenset(ahead), frozenset(gate).union(*(below[other] for other in gate))))
    return Ways(tuple(gates))
