"""Divisions that survive a divisor of 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

from passes.graphs.emitter import Value, aten


@final
@dataclass(frozen=True)
class Relative:
    """A stabiliser in units of what it stabilises: `epsilon` times the root mean square over each sample."""

    epsilon: float


Stabiliser: TypeAlias = float | Relative


def stabilise(value: Value, epsilon: Stabiliser) -> Value:
    """Value + ε sign(value), with sign(0) = +1: never smaller than ε in magnitude."""
    level = stabiliser_level(value, epsilon)
    return (value + level).where(value >= 0, value - level)


def stabiliser_level(value: Value, epsilon: Stabiliser) -> Value | float:
    """The ε that is added to the magnitude of `value`: a number, or one for each sample, (N, 1, ...)."""
    if not isinstance(epsilon, Relative):
        return epsilon
    mean_square = value.emit.call(aten.mean.dim, value * value, list(range(1, value.ndim)), True)
    return without_zeros(value.emit.call(aten.sqrt.default, mean_square) * epsilon.epsilon)


def without_zeros(value: Value) -> Value:
    """The value, with 1 in place of 0: a divisor for numerators that do not matter there."""
    return value.emit.call(aten.where.ScalarSelf, value.equals(0.0), 1.0, value)


def safe_divide(a: Value, b: Value, floor: float) -> Value:
    """A / (b + floor), and 0 where b = 0."""
    return (a / (b + floor)).where(b.differs(0.0), 0.0)
