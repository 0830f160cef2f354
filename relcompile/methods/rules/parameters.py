"""Hyperparameters of rules: what they may be, and how they fit a value."""

from __future__ import annotations

from typing import TypeAlias

import torch

from passes.graphs.emitter import Value, aten
from passes.operators.call import UnaryCall
from passes.relevance.protocol.stabilise import Relative, Stabiliser
from relcompile.errors import CompositeError


def require_positive(name: str, value: Stabiliser) -> None:
    """Refuse a parameter that is not a finite number above 0."""
    number = value.epsilon if isinstance(value, Relative) else value
    if not 0 < number < float("inf"):
        raise CompositeError(f"{name}={value} must be a finite number above 0")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a parameter that is none of `choices`."""
    if value not in choices:
        raise CompositeError(f"{name}={value!r} must be one of {', '.join(choices)}")


Bound: TypeAlias = float | tuple[float, ...]
Bounds: TypeAlias = tuple[Bound, Bound]


def like_input(call: UnaryCall, name: str, value: Bound) -> Value:
    """A constant of the shape of one input sample, (1, J...), from a number or one number per channel.

    Raises:
        CompositeError: as `per_channel`.
    """
    sample = [size if isinstance(size, int) else 1 for size in call.x.shape]  # the batch may be any axis
    return call.emit.call(aten.expand.default, per_channel(call.x, name, value), sample)


def per_channel(x: Value, name: str, value: Bound) -> Value:
    """A constant that broadcasts to x (N, C, ...), from a number or one number per channel.

    Raises:
        CompositeError: there are neither one nor C numbers.
    """
    values = torch.tensor(as_tuple(value), dtype=x.fake.dtype)
    if values.numel() not in (1, x.shape[1]):
        raise CompositeError(f"{name}={value}: give one number, or one for each of the {x.shape[1]} channels")
    return x.emit.constant(name, values.reshape([1, -1, *[1] * (x.ndim - 2)]))


def as_tuple(value: Bound) -> tuple[float, ...]:
    """One number, or one per channel, as numbers."""
    return value if isinstance(value, tuple) else (float(value),)
