"""Values that are sums of contributions: how widely these scatter.

A unit z = Σ_c c sums contributions c, one for each of its inputs. `AddSpread` finds out V = Σ_c c²: the variance, but
for a factor, of the sum over a random half of them. A value that no rule tells the contributions of is one itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from passes.graphs.emitter import Value
from passes.graphs.facts import Fact

SPREAD: Final = Fact[Callable[[], Value] | None]("spread")
"""What writes V; None for a value that is its own contribution."""


def is_sum_of_contributions(value: Value) -> bool:
    """The value knows its contributions."""
    return SPREAD.of(value.node) is not None


def spread(value: Value) -> Value:
    """V = Σ_c c², written when somebody asks; v² for a value that is its own contribution."""
    write = SPREAD.of(value.node)
    return value * value if write is None else write()
