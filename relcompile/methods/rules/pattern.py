"""Rules that know from data in which direction of its input a neuron finds its signal: PatternNet, PatternAttribution.

The pattern a_k of a neuron z_k = w_k · x + b_k has w_k · a_k = 1: x = a_k y_k + distractor, where the distractor does
not change y_k = w_k · x. `relcompile.calibration` estimates patterns; A has the shape of W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch

from passes.graphs.emitter import Value, aten
from passes.graphs.facts import Fact
from passes.operators.affine import AffineCall
from passes.operators.call import Call
from passes.relevance.protocol.messages import Form, Multiplier, Relevance
from passes.relevance.protocol.rule import AnyRule, Messages, facts_needed, passed_by
from passes.relevance.protocol.stabilise import without_zeros
from relcompile.errors import CompositeError

Patterns = Mapping[str, torch.Tensor]


@final
@dataclass(frozen=True, eq=False)
class PatternNet:
    """The signal that a neuron saw, projected back: the gradient with patterns in place of weights.

    Equation: s_x = Aᵀ s_z. What travels is a signal, in units of the values, not relevance.

    Args:
        patterns: one per layer, by layer name, of the shape of W.
    Shapes: s_z like z, s_x like x.
    Conserves: no: every neuron brings back all of its signal, so values grow with the number of neurons.
    Source: Kindermans et al. 2018 (PatternNet).
    """

    patterns: Patterns = field(repr=False)
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier,)

    def propagate(self, call: AffineCall, arriving: Multiplier, /) -> Messages:
        signal = call.transposed(arriving.multiplier, _pattern(call, self.patterns))
        return (Multiplier(call.x, signal),)


@final
@dataclass(frozen=True, eq=False)
class PatternAttribution:
    """What the signal in each input contributes to the neuron.

    Equation: R_x = (W ⊙ A)ᵀ R_z

    Args:
        patterns: as in `PatternNet`.
    Shapes: R_z like z, R_x like x.
    Conserves: exactly, apart from padding, units that were never active and units that this input leaves inactive.
    Source: Kindermans et al. 2018 (PatternAttribution): Deep Taylor with the root at the distractor.
    """

    patterns: Patterns = field(repr=False)
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        weight = call.weight * _pattern(call, self.patterns)
        return (Relevance(call.x, call.transposed(arriving.relevance, weight)),)


@final
@dataclass(frozen=True)
class RelevanceGradient:
    """Relevance passes like a gradient: the mask of a ReLU, equal parts in an average, the winner in a maximum.

    Equation: R_x = (∂y/∂x)ᵀ R_y
    Shapes: R_y like y, R_x like x.
    Conserves: averages and maxima do; activations keep what arrives at inactive units.
    Source: Kindermans et al. 2018.
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (Call,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def propagate(self, call: Call, arriving: Relevance, /) -> Messages:
        parts = call.adjoint(arriving.relevance)
        return tuple(
            None if part is None else Relevance(call.operand(position), part) for position, part in enumerate(parts)
        )


@final
@dataclass(frozen=True)
class Normalised:
    """Another rule, after everything that arrives was divided by its largest magnitude in the sample.

    Equation: R_x = rule(R_y / max|R_y|). At a bottleneck this changes the scale of a sample's map and nothing else.

    Args:
        rule: the other rule.
    Conserves: no.
    Source: iNNvestigate, which does so at every bottleneck for PatternNet and PatternAttribution.
    """

    rule: AnyRule
    applies_to: ClassVar[tuple[type[Call], ...]] = (Call,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, Relevance)

    @property
    def needs(self) -> tuple[Fact[Any], ...]:
        return tuple(facts_needed((self.rule,)))

    def propagate(self, call: Call, arriving: Multiplier | Relevance, /) -> Messages:
        if isinstance(arriving, Multiplier):
            normalised = Multiplier(arriving.at, _normalised(arriving.multiplier))
        else:
            normalised = Relevance(arriving.at, _normalised(arriving.relevance))
        return passed_by(self.rule, call, normalised)


def _pattern(call: AffineCall, patterns: Patterns) -> Value:
    """The layer's pattern, stored in the explainer."""
    pattern, weight = patterns.get(call.layer), call.weight
    if pattern is None:
        known = ", ".join(patterns) or "none"
        raise CompositeError(f"the calibration has no pattern for layer {call.layer}; it has: {known}")
    if tuple(pattern.shape) != weight.shape:
        raise CompositeError(
            f"the pattern of layer {call.layer} has shape {tuple(pattern.shape)}, but its weight {weight.shape}"
        )
    return call.emit.constant(f"{call.node.name}_pattern", pattern.to(weight.fake.dtype))


def _normalised(value: Value) -> Value:
    """Every sample divided by its largest magnitude."""
    return value / without_zeros(value.emit.call(aten.amax.default, value.magnitude, list(range(1, value.ndim)), True))
