"""What travels backwards, and the protocol of a rule.

For a forward value `v` the relevance half carries a *message*: a multiplier `m` with `R = v ⊙ m`, or the relevance
`R` itself where no multiplier can hold it (a rule that gives relevance to v = 0, or a pole). Either form is written
only when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from passes.emitter import Value, aten
from passes.learn_roots import Root
from passes.operators.call import Call


class Message:
    """Relevance arriving at the forward value `at`, as a multiplier, as relevance, or as both.

    Args:
        at: the forward value v.
        multiplier: writes m with R = v ⊙ m; None if there is no such m.
        relevance: writes R; None if it is to be computed as v ⊙ m.
        root: what a rule that searches for the root of its operator found, for the report of roots.
    """

    def __init__(
        self,
        at: Value,
        multiplier: Callable[[], Value] | None = None,
        relevance: Callable[[], Value] | None = None,
        root: Root | None = None,
    ) -> None:
        if multiplier is None and relevance is None:
            raise ValueError("a message needs a multiplier or a relevance")
        self.at = at
        self._multiplier = multiplier
        self._relevance = relevance
        self.root = root

    @classmethod
    def of_multiplier(cls, at: Value, multiplier: Value, root: Root | None = None) -> Message:
        """R = at ⊙ multiplier."""
        return cls(at, multiplier=lambda: multiplier, root=root)

    @classmethod
    def of_relevance(cls, at: Value, relevance: Value, root: Root | None = None) -> Message:
        """R, where no multiplier holds it."""
        return cls(at, relevance=lambda: relevance, root=root)

    @property
    def has_multiplier(self) -> bool:
        """True if the multiplier form is exact."""
        return self._multiplier is not None

    @cached_property
    def multiplier(self) -> Value:
        """The multiplier m with R = v ⊙ m. From a relevance it is R / v; relevance at v = 0 is then lost."""
        if self._multiplier is not None:
            return self._multiplier()
        return self.relevance / without_zeros(self.at)

    @cached_property
    def relevance(self) -> Value:
        """R, in the units of the explained output."""
        if self._relevance is not None:
            return self._relevance()
        return self.at * self.multiplier


Messages: TypeAlias = tuple[Message | None, ...]
CallT_contra = TypeVar("CallT_contra", bound=Call, contravariant=True)


class Rule(Protocol[CallT_contra]):
    """How relevance passes through one kind of operator: a frozen object that holds hyperparameters only."""

    applies_to: ClassVar[tuple[type[Call], ...]]

    def propagate(self, call: CallT_contra, arriving: Message, /) -> Messages:
        """Messages for the operands of `call`, one entry per operand, None where nothing flows."""
        ...


AnyRule: TypeAlias = Rule[Any]


def accumulate(messages: Sequence[Message]) -> Message:
    """Messages from several uses of one value add up, in the multiplier form if all of them have it."""
    first, *rest = messages
    if not rest:
        return first
    if all(message.has_multiplier for message in messages):
        return Message(first.at, multiplier=lambda: _total([message.multiplier for message in messages]))
    return Message(first.at, relevance=lambda: _total([message.relevance for message in messages]))


def stabilise(value: Value, epsilon: float) -> Value:
    """Value + ε sign(value), with sign(0) = +1: never smaller than ε in magnitude."""
    return (value + epsilon).where(value >= 0, value - epsilon)


def without_zeros(value: Value) -> Value:
    """The value, with 1 in place of 0: a divisor for numerators that do not matter there."""
    return value.ones().where(value.equals(0.0), value)


def safe_divide(a: Value, b: Value, floor: float) -> Value:
    """A / (b + floor), and 0 where b = 0."""
    return (a / (b + floor)).where(b.emit.call(aten.ne.Scalar, b, 0), 0.0)


def _total(values: Sequence[Value]) -> Value:
    total, *rest = values
    for value in rest:
        total = total + value
    return total
