"""What rules of differences ask a forward value for: its reference value, and how it differs from it.

`AddReference` tells every value that depends on the explained inputs its value at the reference input, and
`AddContributions` how the difference splits. Without a reference the difference of a value is the value itself.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, TypeVar

from torch.fx import Node

from passes.graphs.emitter import Value
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


def reference(value: Value) -> Value:
    """x0: the value at the reference input, of one sample or of as many as x. A constant is its own reference."""
    return value.emit.value(_reference_node(value.node))


def difference(value: Value) -> Value:
    """Δx = x - x0; x itself in a graph without a reference."""
    return value - reference(value) if "reference" in value.node.meta else value


def contributions(value: Value) -> Split:
    """Δx⁺ and Δx⁻, Δx⁺ + Δx⁻ = Δx, written when somebody asks; 0 for a constant."""
    write = value.node.meta.get("contributions")
    return write() if write else Split(value.zeros(), value.zeros())


def at_reference(call: CallT) -> CallT:
    """The same operator as it runs on the reference input."""
    operands = tuple(_reference_node(operand) for operand in call.operands)
    return dataclasses.replace(call, node=_reference_node(call.node), operands=operands)


def for_every_sample(call: CallT, like: CallT) -> CallT:
    """`call` with operands that have as many samples as those of `like`."""
    operands = [call.operand(k).expand_like(like.operand(k)).node for k in range(len(call.operands))]
    return dataclasses.replace(call, operands=tuple(operands))


def _reference_node(node: Node) -> Node:
    return node.meta.get("reference", node)
