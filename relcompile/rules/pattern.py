"""Rules that know from data in which direction of its input a neuron finds its signal: PatternNet, PatternAttribution.

The pattern a_k of a neuron z_k = w_k · x + b_k has w_k · a_k = 1: x = a_k y_k + distractor, where the distractor does
not change y_k = w_k · x. `relcompile.calibration` estimates patterns; A has the shape of W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch

from passes.emitter import Value, aten
from passes.messages import Message, Messages, without_zeros
from passes.operators.affine import AffineCall
from passes.operators.call import Call
from relcompile.errors import CompositeError

Patterns = Mapping[str, torch.Tensor]


@final
@dataclass(frozen=True, eq=False)
class PatternNet:
    """The signal that a neuron saw, projected back: the gradient with patterns in place of weights.

    Equation: s_x = Aᵀ s_z. What travels is a signal, in units of the values, not relevance.

    Args:
        patterns: one per layer, by layer name, of the shape of W.
        normalise: divide what arrives by its largest magnitude in the sample, for networks without branches: every
            value is then a bottleneck, and only the scale of the map changes.
    Shapes: s_z like z, s_x like x.
    Conserves: no.
    Source: Kindermans et al. 2018 (PatternNet); the normalisation is iNNvestigate's.
    """

    patterns: Patterns = field(repr=False)
    normalise: bool = False
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)

    def propagate(self, call: AffineCall, arriving: Message, /) -> Messages:
        signal = _normalised(arriving.multiplier) if self.normalise else arriving.multiplier
        return (Message.of_multiplier(call.x, call.transposed(signal, _pattern(call, self.patterns))),)


@final
@dataclass(frozen=True, eq=False)
class PatternAttribution:
    """What the signal in each input contributes to the neuron.

    Equation: R_x = (W ⊙ A)ᵀ R_z

    Args:
        patterns, normalise: as in `PatternNet`.
    Shapes: R_z like z, R_x like x.
    Conserves: exactly, apart from padding, units that were never active and units that this input leaves inactive.
    Source: Kindermans et al. 2018 (PatternAttribution): Deep Taylor with the root at the distractor.
    """

    patterns: Patterns = field(repr=False)
    normalise: bool = False
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)

    def propagate(self, call: AffineCall, arriving: Message, /) -> Messages:
        relevance = _normalised(arriving.relevance) if self.normalise else arriving.relevance
        weight = call.weight * _pattern(call, self.patterns)
        return (Message.of_relevance(call.x, call.transposed(relevance, weight)),)


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

    def propagate(self, call: Call, arriving: Message, /) -> Messages:
        parts = call.adjoint(arriving.relevance)
        return tuple(
            None if part is None else Message.of_relevance(call.operand(position), part)
            for position, part in enumerate(parts)
        )


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
    magnitude = value.emit.call(aten.abs.default, value)
    return value / without_zeros(value.emit.call(aten.amax.default, magnitude, list(range(1, value.ndim)), True))
