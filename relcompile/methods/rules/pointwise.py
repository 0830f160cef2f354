"""Rules for activations, for constants that are added, and for products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from passes.graphs.emitter import Value
from passes.operators.activation import ActivationCall
from passes.operators.arithmetic import MatmulCall, ProductCall, QuotientCall, ShiftCall
from passes.operators.call import Call
from passes.operators.softmax import SoftmaxCall
from passes.relevance.protocol.messages import Form, Multiplier, Relevance
from passes.relevance.protocol.reference import Split, difference
from passes.relevance.protocol.rule import Messages
from passes.views.gates import signal_of


@final
@dataclass(frozen=True)
class PassThrough:
    """Relevance passes an activation, or an added constant, as it is.

    Equation: R_z = R_y. As a multiplier m_z = m_y y / z, the secant; for ReLU that is the mask [z > 0]. Where f(0) ≠ 0
        (sigmoid, softplus, an added constant) y / z has a pole, and relevance itself is carried.
    Shapes: all like z.
    Conserves: exactly.
    Source: Bach et al. 2015, section "Pixel-wise decomposition for multilayer networks"; zennit's `Pass`.
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (ActivationCall, ShiftCall)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, Relevance)

    def propagate(self, call: ActivationCall | ShiftCall, arriving: Multiplier | Relevance, /) -> Messages:
        if isinstance(call, ActivationCall) and call.vanishes_at_zero and isinstance(arriving, Multiplier):
            return (Multiplier(call.operand(0), lambda: self._multiplier(call, arriving), lambda: arriving.relevance),)
        relevance = arriving.relevance
        return (Relevance(call.operand(0), relevance.sum_to(call.operand(0))),)

    @staticmethod
    def _multiplier(call: ActivationCall, arriving: Multiplier) -> Value:
        return call.derivative(arriving.multiplier) if call.is_relu else arriving.multiplier * call.secant()


@final
@dataclass(frozen=True)
class ScoresUnder:
    """A softmax or sigmoid at the end: what is explained are the scores under it, as if the network ended there.

    A probability is positive whatever the sign of its score: distributed in the score's place it turns the map around.

    Equation: m_z = m_y, so that R_z = z_k at the target k; relevance that is given (a seed, 1) passes as it is.
        Of magnitudes m_z = |m_y| sign(z), so that R_z = |z_k|.

    Args:
        magnitude: what is distributed is a magnitude; the sign that arrives is that of the probability.
    Shapes: all like z.
    Conserves: to the score z_k, not to the probability.
    Source: Shrikumar et al. 2017, section 3.6; Bach et al. 2015 explain scores.
    """

    magnitude: bool = False
    applies_to: ClassVar[tuple[type[Call], ...]] = (SoftmaxCall, ActivationCall)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, Relevance)

    def propagate(self, call: SoftmaxCall | ActivationCall, arriving: Multiplier | Relevance, /) -> Messages:
        if not isinstance(arriving, Multiplier):
            return (Relevance(call.x, arriving.relevance),)
        m = arriving.multiplier
        if self.magnitude:
            m = m.magnitude.where(call.x >= 0, -m.magnitude)
        return (Multiplier(call.x, m),)

    def contribute(self, call: SoftmaxCall | ActivationCall, /) -> Split:
        """How the difference of the probabilities splits; nothing lies above them that would ask."""
        change = difference(call.output)
        return Split(change.positive, change.negative)


@final
@dataclass(frozen=True)
class SignalTakesAll:
    """In a product of a signal and a gate the signal takes all relevance; of two signals each takes half.

    Equation: y = s g: R_s = R_y, R_g = 0; y = a b: R_a = R_b = R_y / 2. The gate is the operand that comes out
        of a bounded non-linearity (sigmoid, hardsigmoid, tanh, softmax), or that is broadcast; in y = a / b it is b.
    Conserves: exactly.
    Source: Arras et al. 2017 (LSTM gates); Achtibat et al. 2024, equation 8 (the uniform half).
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (ProductCall, MatmulCall, QuotientCall)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, Relevance)

    def propagate(self, call: ProductCall | MatmulCall | QuotientCall, arriving: Multiplier | Relevance, /) -> Messages:
        if len(call.operands) == 1:
            return (Relevance(call.operand(0), arriving.relevance.sum_to(call.operand(0))),)
        signal = signal_of(call)
        if signal is not None and isinstance(arriving, Relevance) and call.operand(signal).shape == call.output.shape:
            passed = Relevance(call.operand(signal), arriving.relevance)  # as a multiplier it has a pole
            return tuple(passed if position == signal else None for position in range(2))
        parts = call.adjoint(arriving.multiplier)
        if signal is None:
            return tuple(
                None if part is None else Multiplier(call.operand(position), part * 0.5)
                for position, part in enumerate(parts)
            )
        chosen = parts[signal]
        message = None if chosen is None else Multiplier(call.operand(signal), chosen)
        return tuple(message if position == signal else None for position in range(len(parts)))
