"""How relevance starts: what the choice of a target is worth at the explained output.

Notation: y the explained output (N, ...); c the choice of a target, 1 at the target and 0 elsewhere. The target
"seed" puts numbers of the user's in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, final

from passes.graphs.emitter import Value


class Start(Protocol):
    """What stands at the output before the reverse walk."""

    is_relevance: ClassVar[bool]
    """`weigh` writes relevance R; otherwise a multiplier m, R = y ⊙ m."""
    seed_is_relevance: ClassVar[bool]
    """So are the numbers that a user gives as a seed."""

    def weigh(self, y: Value, choice: Value, /) -> Value:
        """What is written for a choice."""
        ...


@final
@dataclass(frozen=True)
class Score:
    """The target's score is distributed: m = c."""

    is_relevance: ClassVar[bool] = False
    seed_is_relevance: ClassVar[bool] = True

    def weigh(self, _y: Value, choice: Value, /) -> Value:
        return choice


@final
@dataclass(frozen=True)
class Magnitude:
    """The magnitude of the target's score is distributed: m = c ⊙ sign(y), sign(0) = 1."""

    is_relevance: ClassVar[bool] = False
    seed_is_relevance: ClassVar[bool] = True

    def weigh(self, y: Value, choice: Value, /) -> Value:
        return choice.where(y >= 0, -choice)


@final
@dataclass(frozen=True)
class One:
    """Relevance 1 at the target: R = c."""

    is_relevance: ClassVar[bool] = True
    seed_is_relevance: ClassVar[bool] = True

    def weigh(self, _y: Value, choice: Value, /) -> Value:
        return choice


@final
@dataclass(frozen=True)
class Cotangent:
    """Multiplier 1 at the target, m = c: what a gradient starts with, and a seed is what it starts with instead."""

    is_relevance: ClassVar[bool] = False
    seed_is_relevance: ClassVar[bool] = False

    def weigh(self, _y: Value, choice: Value, /) -> Value:
        return choice


@final
@dataclass(frozen=True)
class Signal:
    """The target's score as a multiplier: m = c ⊙ y."""

    is_relevance: ClassVar[bool] = False
    seed_is_relevance: ClassVar[bool] = False

    def weigh(self, y: Value, choice: Value, /) -> Value:
        return choice * y
