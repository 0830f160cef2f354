"""DeepLIFT's rules for activations: Rescale and RevealCancel. `differences` has those of all other operators.

Notation: x0 is the value at the reference input, Δx = x - x0 = Δx⁺ + Δx⁻ (its positive and negative contributions),
m⁺ and m⁻ are their multipliers, R = Δx⁺ ⊙ m⁺ + Δx⁻ ⊙ m⁻, and R = Δx ⊙ m where both are m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch

from passes.graphs.emitter import Value
from passes.graphs.facts import Fact
from passes.operators.activation import ActivationCall
from passes.operators.call import Call
from passes.relevance.protocol.messages import Form, Multiplier, SplitMultiplier
from passes.relevance.protocol.reference import REFERENCE, Split, at_reference, contributions, difference, reference
from passes.relevance.protocol.rule import Messages
from passes.relevance.protocol.stabilise import stabilise
from relcompile.methods.rules.parameters import require_positive


@final
@dataclass(frozen=True)
class Rescale:
    """DeepLIFT Rescale: the slope of the chord from the reference instead of the tangent.

    Equation: s = Δy / Δz, or f'(z0) where |Δz| < near; m_z = s m_y, the same for m⁺ and m⁻; Δy^± = s Δz^±.

    Args:
        near: > 0, in units of the pre-activation.
    Shapes: all like z.
    Conserves: exactly: Σ R = f(x) - f(x0).
    Source: Shrikumar et al. 2017, section 3.5.1.
    """

    near: float = 1e-7
    applies_to: ClassVar[tuple[type[Call], ...]] = (ActivationCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, SplitMultiplier)
    needs: ClassVar[tuple[Fact[Any], ...]] = (REFERENCE,)

    def __post_init__(self) -> None:
        require_positive("near", self.near)

    def propagate(self, call: ActivationCall, arriving: Multiplier | SplitMultiplier, /) -> Messages:
        slope = self._slope(call)
        if isinstance(arriving, Multiplier):
            return (Multiplier(call.x, arriving.multiplier * slope),)
        m = arriving.split
        return (SplitMultiplier(call.x, Split(m.plus * slope, m.minus * slope)),)

    def contribute(self, call: ActivationCall, /) -> Split:
        slope, parts = self._slope(call), contributions(call.x)
        return Split(parts.plus * slope, parts.minus * slope)

    def _slope(self, call: ActivationCall) -> Value:
        base, delta = at_reference(call), difference(call.x)
        far = delta.magnitude >= self.near
        chord = difference(call.output) / delta.where(far, 1.0)
        return chord.where(far, base.derivative(base.x.ones()))


@final
@dataclass(frozen=True)
class RevealCancel:
    """DeepLIFT RevealCancel: positive and negative contributions act apart, averaged over the order they act in.

    Equation: Δy⁺ = ½ [f(z0 + Δz⁺) - f(z0) + f(z0 + Δz⁻ + Δz⁺) - f(z0 + Δz⁻)], Δy⁻ with ⁺ and ⁻ exchanged;
        m_z⁺ = m_y⁺ Δy⁺ / Δz⁺, m_z⁻ = m_y⁻ Δy⁻ / Δz⁻.

    Args:
        near: > 0: a part Δz^± smaller than near / 2 in magnitude is moved away from 0 by near, so that it can be
            divided by. By default 1e-7 in float64, and 1e-4 in float32, where 1e-7 is lost in rounding.
    Shapes: all like z.
    Conserves: exactly, up to `near`: Σ R = f(x) - f(x0).
    Source: Shrikumar et al. 2017, section 3.5.2; deeplift 0.6, layers/activations.py.
    """

    near: float | None = None
    applies_to: ClassVar[tuple[type[Call], ...]] = (ActivationCall,)
    reads: ClassVar[tuple[Form, ...]] = (SplitMultiplier,)
    needs: ClassVar[tuple[Fact[Any], ...]] = (REFERENCE,)

    def __post_init__(self) -> None:
        if self.near is not None:
            require_positive("near", self.near)

    def propagate(self, call: ActivationCall, arriving: SplitMultiplier, /) -> Messages:
        m, before, after = arriving.split, self._before(call), self.contribute(call)
        plus, minus = m.plus * (after.plus / before.plus), m.minus * (after.minus / before.minus)
        return (SplitMultiplier(call.x, Split(plus, minus)),)

    def contribute(self, call: ActivationCall, /) -> Split:
        plus, minus = self._before(call)
        z, y = reference(call.x), reference(call.output)
        with_plus, with_minus, with_both = (call.run(z + part) for part in (plus, minus, minus + plus))
        return Split(
            ((with_plus - y) + (with_both - with_minus)) * 0.5,
            ((with_minus - y) + (with_both - with_plus)) * 0.5,
        )

    def _before(self, call: ActivationCall) -> Split:
        """Δz⁺ and Δz⁻, moved away from 0."""
        parts = contributions(call.x)
        near = self.near or (1e-7 if call.x.fake.dtype == torch.float64 else 1e-4)
        return Split(_moved(parts.plus, near), _moved(parts.minus, near))


def _moved(part: Value, near: float) -> Value:
    return stabilise(part, near).where(part.magnitude < near / 2, part)
