"""The root of a whole network: what a rule that learns roots finds at the layer that reads the input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from passes.graphs.emitter import Value
from passes.graphs.facts import Fact
from passes.operators.affine import AffineCall
from passes.operators.call import Call
from passes.relevance.protocol.found_root import ROOT
from passes.relevance.protocol.messages import Form, Multiplier, Relevance, SecondOrder
from passes.relevance.protocol.rule import Messages
from relcompile.errors import EvaluationError
from relcompile.methods.composites import Composite
from relcompile.methods.rules.roots.learned_root import LearnedRoot


@final
@dataclass(frozen=True)
class Signal:
    """In the place of relevance, the signal that is learned: the root is x - s.

    Equation: R_x = s of `LearnedRoot`.
    Conserves: no.

    Args:
        learned: how.
    """

    learned: LearnedRoot
    applies_to: ClassVar[tuple[type[Call], ...]] = LearnedRoot.applies_to
    reads: ClassVar[tuple[Form, ...]] = LearnedRoot.reads
    needs: ClassVar[tuple[Fact[Any], ...]] = LearnedRoot.needs

    def propagate(self, call: AffineCall, arriving: Multiplier | SecondOrder | Relevance, /) -> Messages:
        self.learned.propagate(call, arriving)
        return (Relevance(call.x, ROOT.of(call.node).signal),)

    def spread(self, call: AffineCall, /) -> Value:
        """What the activation above asks for."""
        return self.learned.spread(call)


def of_signals(composite: Composite) -> Composite:
    """The same method down to the layers that read the input, and there their signal.

    Raises:
        EvaluationError: it learns no root between 0 and the input.
    """
    entries = composite.entries
    first = [replace(e, rule=Signal(e.rule), first=True) for e in entries if isinstance(e.rule, LearnedRoot)]
    if not first:
        raise EvaluationError(f"rule {composite.name} learns no root between 0 and the input")
    return replace(composite, name=f"signal of {composite.name}", entries=(*first, *entries))
