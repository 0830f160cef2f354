"""What travels backwards: relevance that arrives at a forward value v, in one of four forms.

`Multiplier`       m with R = Δv ⊙ m, Δv = v - v0: the difference from the reference, v itself where there is none
`SecondOrder`      α and β with R = Σ_c (α c + β c²) over the contributions c to v, v = Σ_c c
`SplitMultiplier`  m⁺ and m⁻ with R = Δv⁺ ⊙ m⁺ + Δv⁻ ⊙ m⁻
`Relevance`        R itself, where no multiplier holds it (relevance for v = 0, or a pole)

Every message can be read as a multiplier or as relevance, and writes nothing before it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Any, ClassVar, Final, Self, TypeAlias, TypeVar, final

from passes.graphs.emitter import Value
from passes.graphs.facts import Fact
from passes.relevance.protocol.reference import CONTRIBUTIONS, Split, contributions, difference
from passes.relevance.protocol.spread import SPREAD, is_sum_of_contributions, spread
from passes.relevance.protocol.stabilise import without_zeros

T = TypeVar("T", Value, Split)
Lazy: TypeAlias = T | Callable[[], T]
"""What is written, or what writes it when somebody asks."""


@dataclass(frozen=True, eq=False)
class Message(ABC):
    """Relevance arriving at the forward value `at`.

    Attributes:
        at: v.
        needs: the facts about v that the form is read with.
    """

    at: Value
    needs: ClassVar[tuple[Fact[Any], ...]] = ()

    @cached_property
    def relevance(self) -> Value:
        """R, in the units of the explained output."""
        return self._relevance()

    @abstractmethod
    def _relevance(self) -> Value:
        """Write R."""

    @cached_property
    def multiplier(self) -> Value:
        """The m with R = Δv ⊙ m. From another form it is R / Δv; relevance at Δv = 0 is then lost."""
        return self.relevance / without_zeros(difference(self.at))

    @abstractmethod
    def times(self, factor: Value, /) -> Message:
        """R ⊙ factor, which broadcasts to the shape of v, in the same form."""

    @classmethod
    @abstractmethod
    def holds(cls, message: Message, /) -> bool:
        """The form says exactly what `message` says."""

    @classmethod
    @abstractmethod
    def of(cls, message: Message, /) -> Self:
        """`message` in this form; exact if it holds it."""

    @classmethod
    @abstractmethod
    def total(cls, messages: Sequence[Message], /) -> Message:
        """The sum of messages that the form holds, at one value."""


@final
@dataclass(frozen=True, eq=False)
class Multiplier(Message):
    """R = Δv ⊙ m.

    Attributes:
        m: the multiplier.
        R: the relevance, if that is known as well.
    """

    m: Lazy[Value]
    R: Lazy[Value] | None = None

    @cached_property
    def multiplier(self) -> Value:
        return _written(self.m)

    def _relevance(self) -> Value:
        return difference(self.at) * self.multiplier if self.R is None else _written(self.R)

    @cached_property
    def split(self) -> Split:
        """Twice the multiplier."""
        return Split(self.multiplier, self.multiplier)

    def times(self, factor: Value, /) -> Multiplier:
        known = None if self.R is None else lambda: self.relevance * factor
        return Multiplier(self.at, lambda: self.multiplier * factor, known)

    @classmethod
    def holds(cls, message: Message, /) -> bool:
        return isinstance(message, Multiplier)

    @classmethod
    def of(cls, message: Message, /) -> Multiplier:
        return message if isinstance(message, Multiplier) else cls(message.at, lambda: message.multiplier)

    @classmethod
    def total(cls, messages: Sequence[Message], /) -> Multiplier:
        return cls(messages[0].at, lambda: _sum([message.multiplier for message in messages]))


@final
@dataclass(frozen=True, eq=False)
class SecondOrder(Message):
    """R = Σ_c (α c + β c²) = α v + β V, V = Σ_c c² the spread of v.

    Attributes:
        first: α.
        second: β.
    """

    first: Value
    second: Value
    needs: ClassVar[tuple[Fact[Any], ...]] = (SPREAD,)

    def _relevance(self) -> Value:
        return self.at * self.first + spread(self.at) * self.second

    def times(self, factor: Value, /) -> SecondOrder:
        return SecondOrder(self.at, self.first * factor, self.second * factor)

    @classmethod
    def holds(cls, message: Message, /) -> bool:
        return isinstance(message, SecondOrder | Multiplier)

    @classmethod
    def of(cls, message: Message, /) -> SecondOrder:
        if isinstance(message, SecondOrder):
            return message
        return cls(message.at, message.multiplier, message.multiplier.zeros())

    @classmethod
    def total(cls, messages: Sequence[Message], /) -> Message:
        orders = [message for message in messages if isinstance(message, SecondOrder)]
        plain = [message.multiplier for message in messages if isinstance(message, Multiplier)]
        first = _sum([*plain, *(order.first for order in orders)])
        return second_order(messages[0].at, first, _sum([order.second for order in orders]))


@final
@dataclass(frozen=True, eq=False)
class SplitMultiplier(Message):
    """R = Δv⁺ ⊙ m⁺ + Δv⁻ ⊙ m⁻.

    Attributes:
        parts: m⁺ and m⁻.
    """

    parts: Lazy[Split]
    needs: ClassVar[tuple[Fact[Any], ...]] = (CONTRIBUTIONS,)

    @cached_property
    def split(self) -> Split:
        """m⁺ and m⁻."""
        return _written(self.parts)

    def _relevance(self) -> Value:
        delta, m = contributions(self.at), self.split
        return delta.plus * m.plus + delta.minus * m.minus

    def times(self, factor: Value, /) -> SplitMultiplier:
        return SplitMultiplier(self.at, lambda: Split(self.split.plus * factor, self.split.minus * factor))

    @classmethod
    def holds(cls, message: Message, /) -> bool:
        return isinstance(message, SplitMultiplier | Multiplier)

    @classmethod
    def of(cls, message: Message, /) -> SplitMultiplier:
        if isinstance(message, SplitMultiplier):
            return message
        return cls(message.at, lambda: Multiplier.of(message).split)

    @classmethod
    def total(cls, messages: Sequence[Message], /) -> SplitMultiplier:
        return cls(messages[0].at, lambda: _sum_of_splits([cls.of(message).split for message in messages]))


@final
@dataclass(frozen=True, eq=False)
class Relevance(Message):
    """R itself.

    Attributes:
        R: the relevance.
    """

    R: Lazy[Value]

    def _relevance(self) -> Value:
        return _written(self.R)

    def times(self, factor: Value, /) -> Relevance:
        return Relevance(self.at, lambda: self.relevance * factor)

    @classmethod
    def holds(cls, _message: Message, /) -> bool:
        return True

    @classmethod
    def of(cls, message: Message, /) -> Relevance:
        return message if isinstance(message, Relevance) else cls(message.at, lambda: message.relevance)

    @classmethod
    def total(cls, messages: Sequence[Message], /) -> Relevance:
        return cls(messages[0].at, lambda: _sum([message.relevance for message in messages]))


Form: TypeAlias = type[Message]
FORMS: Final[tuple[Form, ...]] = (Multiplier, SecondOrder, SplitMultiplier, Relevance)
"""From the tightest to the most general."""


def second_order(at: Value, first: Value, second: Value) -> Message:
    """R = Σ_c (α c + β c²) over the contributions c to `at`; a value that is its own has a multiplier."""
    return SecondOrder(at, first, second) if is_sum_of_contributions(at) else Multiplier(at, first + at * second)


def accumulate(messages: Sequence[Message]) -> Message:
    """Messages from several uses of one value add up, in the tightest form that holds all of them."""
    if len(messages) == 1:
        return messages[0]
    return _tightest(FORMS, messages).total(messages)


def read_as(message: Message, forms: Sequence[Form]) -> Message:
    """`message` in the tightest of `forms` that holds it, else in the most general one, for what that is worth."""
    return _tightest([form for form in FORMS if form in forms], [message]).of(message)


def _tightest(forms: Sequence[Form], messages: Sequence[Message]) -> Form:
    return next((form for form in forms if all(map(form.holds, messages))), forms[-1])


def _written(value: Lazy[T]) -> T:
    return value() if callable(value) else value


def _sum(values: Sequence[Value]) -> Value:
    return reduce(add, values)


def _sum_of_splits(splits: Sequence[Split]) -> Split:
    return Split(_sum([split.plus for split in splits]), _sum([split.minus for split in splits]))
