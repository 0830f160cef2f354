"""What rules of differences ask a forward value for: its reference value, and how it differs from it.

`AddReference` finds out the value of everything at the reference input, and `AddContributions` how differences split.
In a method without a reference `TakeFromZero` says so: there the difference of a value is the value itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar, final

from torch.fx import Node

from passes.errors import InvariantError
from passes.graphs.emitter import Value
from passes.graphs.facts import Fact
from passes.operators.call import Call

CallT = TypeVar("CallT", bound=Call)


class Split(NamedTuple):
    """The positive and the negative part of a difference, or the multipliers of these parts."""

    plus: Value
    minus: Value

    @property
    def swapped(self) -> Split:
        """The parts exchanged, as a negative factor does it."""
        return Split(self.minus, self.plus)


@final
@dataclasses.dataclass(frozen=True)
class Zero:
    """What differences are taken from in a method without a reference; it is no value of the network."""


REFERENCE: Final = Fact[Node | Zero]("reference")
CONTRIBUTIONS: Final = Fact[Callable[[], Split]]("contributions")


def reference(value: Value) -> Value:
    """x0: the value at the reference input, of one sample or of as many as x. A constant is its own reference."""
    return value.emit.value(_reference_node(value.node))


def difference(value: Value) -> Value:
    """Δx = x - x0; x itself in a method without a reference, 0 for a constant."""
    if REFERENCE.is_constant(value.node):
        return value.zeros()
    base = REFERENCE.of(value.node)
    return value if isinstance(base, Zero) else value - value.emit.value(base)


def contributions(value: Value) -> Split:
    """Δx⁺ and Δx⁻, Δx⁺ + Δx⁻ = Δx, written when somebody asks; 0 for a constant."""
    if CONTRIBUTIONS.is_constant(value.node):
        return Split(value.zeros(), value.zeros())
    return CONTRIBUTIONS.of(value.node)()


def at_reference(call: CallT) -> CallT:
    """The same operator as it runs on the reference input."""
    operands = tuple(_reference_node(operand) for operand in call.operands)
    return dataclasses.replace(call, node=_reference_node(call.node), operands=operands)


def for_every_sample(call: CallT, like: CallT) -> CallT:
    """`call` with operands that have as many samples as those of `like`."""
    operands = [call.operand(k).expand_like(like.operand(k)).node for k in range(len(call.operands))]
    return dataclasses.replace(call, operands=tuple(operands))


def _reference_node(node: Node) -> Node:
    if REFERENCE.is_constant(node):
        return node
    base = REFERENCE.of(node)
    if isinstance(base, Zero):
        raise InvariantError(f"the method takes no reference, but the value of {node.name} there was asked for")
    return base
