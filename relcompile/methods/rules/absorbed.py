"""What biases and stabilisers absorb, handed back to the inputs."""

from __future__ import annotations

from typing import Literal, TypeAlias

from passes.graphs.emitter import Value
from passes.relevance.protocol.stabilise import without_zeros

Absorbed: TypeAlias = Literal["shared", "full"]


def handed_back(relevance: Value, R: Value) -> Value:
    """The factor of every element by which `relevance` gets the sum of R in every sample.

    Too little: the positive relevances grow by one factor; too much: the negative ones do. Their order stays.
    """
    positive, negative = (part.sum_beside(relevance) for part in (relevance.positive, relevance.negative))
    missing = R.sum_beside(relevance) - positive - negative
    grow = missing.positive / without_zeros(positive) + 1.0
    shrink = missing.negative / without_zeros(negative) + 1.0
    return grow.where(relevance > 0, shrink)
