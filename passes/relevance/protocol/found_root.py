"""What a rule finds that searches for the root of its operator: it notes it, and the report of roots reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from passes.graphs.emitter import Value
from passes.graphs.facts import Fact


@final
@dataclass(frozen=True, eq=False)
class Root:
    """What a search found.

    Attributes:
        x: the layer's input.
        signal: s; the root is x - s.
        loss_before, loss_after: the loss of every sample at the first and at the last signal, (N, 1).
    """

    x: Value
    signal: Value
    loss_before: Value
    loss_after: Value

    @property
    def point(self) -> Value:
        """The root x - s."""
        return self.x - self.signal

    def __add__(self, other: Root) -> Root:
        """The root of two parts of one input, each searched for on its own."""
        return Root(
            self.x + other.x,
            self.signal + other.signal,
            self.loss_before + other.loss_before,
            self.loss_after + other.loss_after,
        )


ROOT: Final = Fact[Root]("root")
"""Of the node of an operator: what its rule found."""
