"""Relevance between a unit and its roots: what an activation does on every way that its contributions can leave.

Notation: z = Σ_c c is the pre-activation, c = w x the contributions of the inputs (and the bias); V = Σ_c c²; y = f(z);
m is the multiplier of y. A root of the unit is an input without the contributions that make it answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from passes.graphs.emitter import Value, aten
from passes.graphs.facts import Fact
from passes.operators.activation import ActivationCall
from passes.operators.arithmetic import CombinationCall, ShiftCall
from passes.operators.call import Call
from passes.relevance.protocol.messages import Form, Multiplier, Relevance, SecondOrder, second_order
from passes.relevance.protocol.rule import Messages
from passes.relevance.protocol.spread import SPREAD, spread
from passes.relevance.protocol.stabilise import without_zeros
from relcompile.methods.rules.absorbed import Absorbed, handed_back
from relcompile.methods.rules.adjoint import Adjoint
from relcompile.methods.rules.parameters import require_choice, require_positive
from relcompile.methods.rules.pointwise import PassThrough


@final
@dataclass(frozen=True)
class BetweenRoots:
    """The second-order Taylor expansion of an activation, averaged over the inputs between z and its zero root.

    Contributions leave in random order. While a share p of them is left the sum is about normal, with the mean p z and
    the variance p (1 - p) V, so a ReLU has the mean slope A = ∫₀¹ Φ(p z / sqrt(p (1 - p) V)) dp: units that are silent
    at x answer on some of the ways. A c + B c² is what the unit loses when c leaves, to second order: about its Shapley
    value.

    Equation: R_c = m (A c + B c²), A = 1/2 + z / q, B = κ |z| / (2 q²), q = |z| + sqrt(z² + κ V); for any other f
        A = s₋ + (s₊ - s₋) (1/2 + z / q), B = (s₊ - s₋) κ |z| / (2 q²), s± = (f(±|z|) - f(0)) / ±|z|.
        With κ = 8 / π this A is the integral, within 0.02.

    Args:
        kappa: > 0; κ π / 8 contributions leave at once (neighbours in a picture are not independent).
        near: > 0, in units of z: slopes s± are taken no nearer to 0.
    Shapes: A, B and V like z.
    Conserves: exactly: Σ_c R_c = m (f(z) - f(0)), since A z + B V = f(z) - f(0).
    Source: Shapley 1953; Ancona et al. 2019 (sums over random coalitions are about normal); Abramowitz and Stegun
        1964, 7.1.13 (the upper bound of Mills' ratio, which makes A algebraic); Zhang et al. 2024 (second order).
    """

    kappa: float = 8.0
    near: float = 1e-3
    applies_to: ClassVar[tuple[type[Call], ...]] = (ActivationCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, Relevance)
    needs: ClassVar[tuple[Fact[Any], ...]] = (SPREAD,)

    def __post_init__(self) -> None:
        require_positive("kappa", self.kappa)
        require_positive("near", self.near)

    def propagate(self, call: ActivationCall, arriving: Multiplier | Relevance, /) -> Messages:
        if not call.takes_any_number:
            return PassThrough().propagate(call, arriving)
        m, z = arriving.multiplier, call.x
        size = z.magnitude
        q = without_zeros(size + z.emit.call(aten.sqrt.default, z * z + spread(z) * self.kappa))
        first, second = z / q + 0.5, size / (q * q) * (self.kappa / 2)
        if call.is_relu:
            return (second_order(z, m * first, m * second),)
        rise, fall = self._slopes(call, size)
        bend = m * (rise - fall)
        return (second_order(z, m * fall + bend * first, bend * second),)

    def _slopes(self, call: ActivationCall, size: Value) -> tuple[Value, Value]:
        """s₊ and s₋."""
        far = size.emit.call(aten.clamp_min.default, size, self.near)
        above, below = call.at(far).output, call.at(-far).output
        if call.vanishes_at_zero:
            return above / far, -(below / far)
        base = call.at(size.zeros()).output
        return (above - base) / far, (base - below) / far


@final
@dataclass(frozen=True)
class ContributionsApart:
    """Sums, scales and added constants below an activation keep the contributions of their operands apart.

    Equation: y = Σ_k a_k x_k + b: α_k = a_k α_y, β_k = a_k² β_y; V_y = Σ_k a_k² V_k + b². Relevance that does not tell
        contributions apart passes a sum and a scale by the adjoint, and a constant as it is.

    Args:
        bias: "shared" hands back what an added constant absorbs, as in `LearnedRoot`; "full" lets it go.
    Conserves: exactly, wherever some operand has relevance of the sign of what is handed back.
    Source: `BetweenRoots`.
    """

    bias: Absorbed = "shared"
    applies_to: ClassVar[tuple[type[Call], ...]] = (CombinationCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, SecondOrder, Relevance)

    def __post_init__(self) -> None:
        require_choice("bias", self.bias, ("shared", "full"))

    def propagate(self, call: CombinationCall, arriving: Multiplier | SecondOrder | Relevance, /) -> Messages:
        if not isinstance(arriving, SecondOrder):
            if isinstance(call, ShiftCall):
                return PassThrough().propagate(call, arriving)
            return Adjoint().propagate(call, arriving)
        operands = [call.operand(k) for k in range(len(call.operands))]
        firsts = [call.term(arriving.first, k).sum_to(operand) for k, operand in enumerate(operands)]
        seconds = [_squared(call, k, arriving.second).sum_to(operand) for k, operand in enumerate(operands)]
        if isinstance(call, ShiftCall) and self.bias == "shared":
            (x,), (first,), (second,) = operands, firsts, seconds
            factor = handed_back(x * first + spread(x) * second, arriving.relevance)
            return (second_order(x, first * factor, second * factor),)
        return tuple(map(second_order, operands, firsts, seconds))

    def spread(self, call: CombinationCall, /) -> Value:
        """V of the output."""
        total, *more = [_squared(call, k, spread(call.operand(k))) for k in range(len(call.operands))]
        for part in more:
            total = total + part
        if not isinstance(call, ShiftCall):
            return total
        constant = call.output - call.term(call.operand(0), 0)
        return total + constant * constant


def _squared(call: CombinationCall, position: int, value: Value) -> Value:
    """a² times the value, a the factor of the operand at `position`."""
    return call.term(call.term(value, position), position)
