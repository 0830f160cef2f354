"""Values that are sums of contributions: how widely these scatter, and relevance that tells them apart.

A unit z = Σ_c c sums contributions c, one for each of its inputs. `AddSpread` tells every such value V = Σ_c c²: the
variance, but for a factor, of the sum over a random half of them. A value that nobody told is its own contribution.
"""

from __future__ import annotations

from typing import NamedTuple

from passes.graphs.emitter import Value


class SecondOrder(NamedTuple):
    """α and β of R = Σ_c (α c + β c²), both like the value that the contributions add up to."""

    first: Value
    second: Value


def is_sum_of_contributions(value: Value) -> bool:
    """The value knows its contributions."""
    return "spread" in value.node.meta


def spread(value: Value) -> Value:
    """V = Σ_c c²; written when somebody asks."""
    return value.node.meta["spread"]() if is_sum_of_contributions(value) else value * value
