"""One row of the table of operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from passes.operators import signs
from passes.operators.activation import Pointwise
from passes.operators.call import Call

View: TypeAlias = type[Call] | Pointwise
Views: TypeAlias = tuple[View, ...]


@dataclass(frozen=True)
class Operator:
    """One operator of aten, or several that differ in their rank or their spelling only.

    Attributes:
        targets: its overloads.
        views: what it can be; the first that fits is what it is. Each has an exact adjoint. None at all: relevance does
            not pass, and the row is there for the sign.
        sign: the sign of its value, from those of its operands.
        gate: its values lie in -1..1: what multiplies another value by them lets a part of it through.
        refusal: why no view fits, where none does.
    """

    targets: tuple[Any, ...]
    views: Views = ()
    sign: signs.SignRule | None = None
    gate: bool = False
    refusal: str = ""
