"""What travels backwards, and the protocol of a rule.

For a forward value `v` the relevance half carries a *message*: a multiplier `m` with `R = v ⊙ m`, or the relevance
`R` itself where no multiplier can hold it (a rule that gives relevance to v = 0, or a pole), or two multipliers where
the positive and the negative part of a difference have one each, or a first and a second order where every
contribution to v shares by its size and by its square. A form is written only when somebody asks for it.
In a graph with a reference `v0` the multiplier belongs to the difference: `R = (v - v0) ⊙ m`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from passes.graphs.emitter import Value
from passes.relevance.found_root import Root
from passes.relevance.reference import Split, contributions, difference
from passes.relevance.spread import SecondOrder, is_sum_of_contributions, spread
from passes.relevance.stabilise import without_zeros


class Message:
    """Relevance arriving at the forward value `at`, in one or more forms.

    Args:
        at: the forward value v.
        multiplier: writes m with R = Δv ⊙ m, Δv = v - v0, or v without a reference; None if there is no such m.
        relevance: writes R; None if it is to be computed from another form.
        split: writes m⁺ and m⁻ with R = Δv⁺ ⊙ m⁺ + Δv⁻ ⊙ m⁻; None if they are equal, or there are none.
        second_order: α and β with R = Σ_c (α c + β c²) over the contributions c to v, v = Σ_c c.
        root: what a rule that searches for the root of its operator found, for the report of roots.
    """

    def __init__(
        self,
        at: Value,
        multiplier: Callable[[], Value] | None = None,
        relevance: Callable[[], Value] | None = None,
        split: Callable[[], Split] | None = None,
        root: Root | None = None,
        second_order: SecondOrder | None = None,
    ) -> None:
        if multiplier is None and relevance is None and split is None:
            raise ValueError("a message needs a multiplier or a relevance")
        self.at = at
        self._multiplier = multiplier
        self._relevance = relevance
        self._split = split
        self.root = root
        self.second_order = second_order

    @classmethod
    def of_multiplier(cls, at: Value, multiplier: Value, root: Root | None = None) -> Message:
        """R = at ⊙ multiplier."""
        return cls(at, multiplier=lambda: multiplier, root=root)

    @classmethod
    def of_split(cls, at: Value, multipliers: Split) -> Message:
        """R = Δat⁺ ⊙ m⁺ + Δat⁻ ⊙ m⁻."""
        return cls(at, split=lambda: multipliers)

    @classmethod
    def of_second_order(cls, at: Value, orders: SecondOrder) -> Message:
        """R = Σ_c (α c + β c²) over the contributions c to `at`; a value that knows of none is its own."""
        first, second = orders
        if not is_sum_of_contributions(at):
            return cls.of_multiplier(at, first + at * second)
        return cls(at, relevance=lambda: at * first + spread(at) * second, second_order=orders)

    @classmethod
    def of_relevance(cls, at: Value, relevance: Value, root: Root | None = None) -> Message:
        """R, where no multiplier holds it."""
        return cls(at, relevance=lambda: relevance, root=root)

    @property
    def has_multiplier(self) -> bool:
        """True if the multiplier form is exact."""
        return self._multiplier is not None

    @property
    def has_split(self) -> bool:
        """True if two multipliers, perhaps equal ones, are exact."""
        return self._multiplier is not None or self._split is not None

    @cached_property
    def multiplier(self) -> Value:
        """The multiplier m with R = Δv ⊙ m. From a relevance it is R / Δv; relevance at Δv = 0 is then lost."""
        if self._multiplier is not None:
            return self._multiplier()
        return self.relevance / without_zeros(difference(self.at))

    @cached_property
    def split(self) -> Split:
        """The multipliers of Δv⁺ and Δv⁻."""
        return self._split() if self._split is not None else Split(self.multiplier, self.multiplier)

    @cached_property
    def relevance(self) -> Value:
        """R, in the units of the explained output."""
        if self._relevance is not None:
            return self._relevance()
        if self._split is not None:
            parts, m = contributions(self.at), self._split()
            return parts.plus * m.plus + parts.minus * m.minus
        return difference(self.at) * self.multiplier


def accumulate(messages: Sequence[Message]) -> Message:
    """Messages from several uses of one value add up, in the tightest form that all of them have."""
    first, *rest = messages
    if not rest:
        return first
    if all(message.has_multiplier for message in messages):
        return Message(first.at, multiplier=lambda: _total([message.multiplier for message in messages]))
    if all(message.has_multiplier or message.second_order for message in messages):
        return _total_second_order(messages)
    if all(message.has_split for message in messages):
        return Message(first.at, split=lambda: _total_split([message.split for message in messages]))
    return Message(first.at, relevance=lambda: _total([message.relevance for message in messages]))


def _total(values: Sequence[Value]) -> Value:
    total, *rest = values
    for value in rest:
        total = total + value
    return total


def _total_split(splits: Sequence[Split]) -> Split:
    return Split(_total([split.plus for split in splits]), _total([split.minus for split in splits]))


def _total_second_order(messages: Sequence[Message]) -> Message:
    orders = [message.second_order for message in messages if message.second_order is not None]
    plain = [message.multiplier for message in messages if message.second_order is None]
    first = _total([*plain, *(order.first for order in orders)])
    return Message.of_second_order(messages[0].at, SecondOrder(first, _total([order.second for order in orders])))
