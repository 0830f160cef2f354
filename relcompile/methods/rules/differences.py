"""Rules of differences from a reference for everything but activations: exact splits of Δy among the Δx.

Notation as in `deeplift`. A sum, a product and a quotient are sums of differences, Δy = Σ_i f_i Δx_i.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, final

from torch.fx import Node

from passes.errors import UnsupportedRuleError
from passes.graphs.emitter import Value
from passes.graphs.facts import Fact
from passes.graphs.graph import describe_node
from passes.operators.affine import AffineCall
from passes.operators.arithmetic import (
    MatmulCall,
    NegateCall,
    ProductCall,
    QuotientCall,
    ReduceCall,
    ScaleCall,
    ShiftCall,
    SumCall,
    scaled,
)
from passes.operators.call import Adjoints, Call
from passes.operators.pooling import AveragePoolCall, MaxPoolCall, ResampleCall
from passes.operators.scattering import ScatterAddCall, ScatterCall, ScatterExtremeCall
from passes.operators.structure import ConcatenateCall, ExtremeCall, MaximumCall, StructureCall, WhereCall
from passes.relevance.protocol.messages import Form, Multiplier, SplitMultiplier
from passes.relevance.protocol.reference import (
    REFERENCE,
    Split,
    at_reference,
    contributions,
    difference,
    for_every_sample,
    reference,
)
from passes.relevance.protocol.rule import Messages
from passes.relevance.protocol.stabilise import without_zeros
from relcompile.methods.rules.parameters import require_choice

CrossTerms: TypeAlias = Literal["kept", "cut", "cut-by-chain"]
Routing: TypeAlias = Literal["crossed", "gradient"]
Extreme: TypeAlias = MaxPoolCall | ExtremeCall | MaximumCall | ScatterExtremeCall


@final
@dataclass(frozen=True)
class AffineDifference:
    """DeepLIFT's linear rule, and its ablation: contributions w Δx go by their signs.

    Equation: Δz⁺ = W⁺(Δx)⁺ + W⁻(Δx)⁻, Δz⁻ = W⁺(Δx)⁻ + W⁻(Δx)⁺. One m for both parts of x:
        Δx > 0: W⁺ᵀm⁺ + W⁻ᵀm⁻;  Δx < 0: W⁺ᵀm⁻ + W⁻ᵀm⁺;  Δx = 0: Wᵀ(m⁺ + m⁻)/2.
        "cut" drops the cross terms: W⁺ᵀm⁺; W⁺ᵀm⁻; Wᵀ(m⁺ + m⁻)/2.
        "cut-by-chain" has W⁺ in the positive and W⁻ in the negative chain: W⁺ᵀm⁺; W⁻ᵀm⁻; Wᵀ(m⁺ + m⁻)/2.

    Args:
        cross_terms: "kept" is DeepLIFT; "cut" the ablation as Sixt et al. ran it, "cut-by-chain" as they describe it.
            A batch norm that was merged into the layer is part of W.
    Shapes: x (N, J), W (K, J), m⁺ and m⁻ (N, K).
    Conserves: exactly if the cross terms are kept (the bias drops out); else no.
    Source: Shrikumar et al. 2017, section 3.5.2; Sixt et al. 2020, section 5.
    """

    cross_terms: CrossTerms = "kept"
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, SplitMultiplier)
    needs: ClassVar[tuple[Fact[Any], ...]] = (REFERENCE,)

    def __post_init__(self) -> None:
        require_choice("cross_terms", self.cross_terms, ("kept", "cut", "cut-by-chain"))

    def propagate(self, call: AffineCall, arriving: Multiplier | SplitMultiplier, /) -> Messages:
        if self.cross_terms == "kept" and isinstance(arriving, Multiplier):
            return (Multiplier(call.x, call.transposed(arriving.multiplier, call.weight)),)
        W, m, delta = call.weight, arriving.split, difference(call.x)
        both = arriving.multiplier if isinstance(arriving, Multiplier) else (m.plus + m.minus) * 0.5
        unchanged = call.transposed(both, W)
        above = call.transposed(m.plus, W.positive)
        if self.cross_terms == "kept":
            above = above + call.transposed(m.minus, W.negative)
            below = unchanged * 2.0 - above
        else:
            below = call.transposed(m.minus, W.positive if self.cross_terms == "cut" else W.negative)
        return (Multiplier(call.x, above.where(delta > 0, below.where(delta < 0, unchanged))),)

    def contribute(self, call: AffineCall, /) -> Split:
        W, delta = call.weight, difference(call.x)
        up, down = delta.positive, delta.negative
        return Split(
            call.apply(up, W.positive) + call.apply(down, W.negative),
            call.apply(down, W.positive) + call.apply(up, W.negative),
        )


@final
@dataclass(frozen=True)
class SumOfDifferences:
    """Sums, products and quotients of values: Δy = Σ_i f_i Δx_i exactly; a linear layer with the weights f_i.

    Equation: m_i = f_i m⁺ where f_i Δx_i > 0, f_i m⁻ where it is < 0, f_i (m⁺ + m⁻)/2 where it is 0;
        a ± b: f = (1, ±1); a b: f = ((b + b0)/2, (a + a0)/2); a / b: f = ((1/b + 1/b0)/2, -(a + a0)/(2 b b0)).
        A sum of three values is two sums.
    Conserves: exactly.
    Source: Sixt et al. 2020 (residual connections as linear layers); the product splits as two players' Shapley
        values do.
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (SumCall, ProductCall, QuotientCall)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, SplitMultiplier)
    needs: ClassVar[tuple[Fact[Any], ...]] = (REFERENCE,)

    def propagate(
        self, call: SumCall | ProductCall | QuotientCall, arriving: Multiplier | SplitMultiplier, /
    ) -> Messages:
        messages = list[Multiplier]()
        for position, factor in enumerate(_factors(call)):
            x = call.operand(position)
            if isinstance(arriving, Multiplier):
                m = arriving.multiplier
            else:
                m = _by_sign(_times(difference(x), factor), arriving.split)
            messages.append(Multiplier(x, _times(m, factor).sum_to(x)))
        return tuple(messages)

    def contribute(self, call: SumCall | ProductCall | QuotientCall, /) -> Split:
        first, *rest = [
            _times(difference(call.operand(position)), factor) for position, factor in enumerate(_factors(call))
        ]
        plus, minus = first.positive, first.negative
        for part in rest:
            plus, minus = plus + part.positive, minus + part.negative
        return Split(plus, minus)


@final
@dataclass(frozen=True)
class MatmulDifference:
    """A product of two matrices that both depend on the input: Δ(a b) = Δa (b + b0)/2 + (a + a0)/2 Δb.

    Equation: m_a = m ((b + b0)/2)ᵀ, m_b = ((a + a0)/2)ᵀ m
    Conserves: exactly. Not defined for two multipliers m⁺ and m⁻.
    Source: two players' Shapley values.
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (MatmulCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, SplitMultiplier)
    needs: ClassVar[tuple[Fact[Any], ...]] = (REFERENCE,)

    def propagate(self, call: MatmulCall, arriving: Multiplier | SplitMultiplier, /) -> Messages:
        if not isinstance(arriving, Multiplier):
            raise _undefined(call)
        a, b = call.operand(0), call.operand(1)
        of_a, of_b = call.adjoint_at(arriving.multiplier, _midpoint(a), _midpoint(b))
        return Multiplier(a, of_a), Multiplier(b, of_b)

    def contribute(self, call: MatmulCall, /) -> Split:
        raise _undefined(call)


@final
@dataclass(frozen=True)
class EachPart:
    """Operators that are linear without mixing signs: both parts and both multipliers take the same way.

    Equation: Δy^± = A Δx^±, m_x^± = Aᵀm_y^±; the signs are exchanged where a factor is negative.
    Conserves: exactly.
    Source: deeplift 0.6 (batch norm, pools, concatenation).
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (
        StructureCall,
        ConcatenateCall,
        WhereCall,
        ScatterCall,
        ScatterAddCall,
        ReduceCall,
        AveragePoolCall,
        ResampleCall,
        ScaleCall,
        NegateCall,
        ShiftCall,
    )
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, SplitMultiplier)
    needs: ClassVar[tuple[Fact[Any], ...]] = (REFERENCE,)

    def propagate(self, call: Call, arriving: Multiplier | SplitMultiplier, /) -> Messages:
        if isinstance(arriving, Multiplier):
            return _messages(call, call.adjoint(arriving.multiplier))
        m = _oriented(call, arriving.split)
        return _split_messages(call, call.adjoint(m.plus), call.adjoint(m.minus))

    def contribute(self, call: Call, /) -> Split:
        operands = [call.operand(position) for position in range(len(call.operands))]
        parts = [contributions(operand) for operand in operands]
        base, starts = reference(call.output), [reference(operand) for operand in operands]
        plus = call.run(*(start + part.plus for start, part in zip(starts, parts, strict=True))) - base
        minus = call.run(*(start + part.minus for start, part in zip(starts, parts, strict=True))) - base
        return _oriented(call, Split(plus, minus))


@final
@dataclass(frozen=True)
class MaxDifference:
    """Maxima: what lies above the reference's maximum goes to the winner, what lies below to the reference's winner.

    Equation: (Δy)⁺ m⁺ to the first maximum of x, (Δy)⁻ m⁻ to that of x0, divided by Δx; for minima exchanged.
        "gradient": both multipliers to the first maximum of x; Δy^± count as 0 above, so that an affine layer has to
        follow.

    Args:
        routing: "crossed" conserves; "gradient" is the deeplift library's.
    Conserves: exactly if crossed; else no.
    Source: captum and SHAP (crossed); deeplift 0.6, layers/pooling.py (gradient).
    """

    routing: Routing = "crossed"
    applies_to: ClassVar[tuple[type[Call], ...]] = (MaxPoolCall, ExtremeCall, MaximumCall, ScatterExtremeCall)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, SplitMultiplier)
    needs: ClassVar[tuple[Fact[Any], ...]] = (REFERENCE,)

    def __post_init__(self) -> None:
        require_choice("routing", self.routing, ("crossed", "gradient"))

    def propagate(self, call: Extreme, arriving: Multiplier | SplitMultiplier, /) -> Messages:
        if self.routing == "gradient":
            return EachPart().propagate(call, arriving)
        above, below = self._shares(call, arriving)
        here, there = call.adjoint(above), for_every_sample(at_reference(call), call).adjoint(below)
        shares = [None if h is None or t is None else h + t for h, t in zip(here, there, strict=True)]
        deltas = [difference(call.operand(position)) for position in range(len(shares))]
        parts = [None if s is None else s / without_zeros(d) for s, d in zip(shares, deltas, strict=True)]
        return _messages(call, tuple(parts))

    def contribute(self, call: Extreme, /) -> Split:
        delta = difference(call.output)
        if self.routing == "gradient":
            return Split(delta.zeros(), delta.zeros())
        return Split(delta.positive, delta.negative)

    @staticmethod
    def _shares(call: Extreme, arriving: Multiplier | SplitMultiplier) -> Split:
        """Relevance for the winners of x and of x0."""
        delta, m = difference(call.output), arriving.split
        shares = Split(m.plus * delta.positive, m.minus * delta.negative)
        return shares.swapped if call.is_minimum else shares


def _factors(call: SumCall | ProductCall | QuotientCall) -> tuple[Value | float, ...]:
    if isinstance(call, SumCall):
        return call.signs
    if isinstance(call, ProductCall):
        return _midpoint(call.operand(1)), _midpoint(call.operand(0))
    a, b = call.emit.value(call.argument(0)), call.emit.value(call.argument(1))
    b0 = reference(b)
    of_b = -(_midpoint(a) / (b * b0))
    return (_midpoint(b) / (b * b0), of_b) if len(call.operands) == 2 else (of_b,)


def _midpoint(value: Value) -> Value:
    return (value + reference(value)) * 0.5


def _times(value: Value, factor: Value | float) -> Value:
    return value * factor if isinstance(factor, Value) else scaled(value, factor)


def _by_sign(delta: Value, m: Split) -> Value:
    """m⁺ where Δ > 0, m⁻ where Δ < 0, their mean where Δ = 0."""
    mean = (m.plus + m.minus) * 0.5
    return m.plus.where(delta > 0, m.minus.where(delta < 0, mean))


def _oriented(call: Call, parts: Split) -> Split:
    """The parts exchanged where `call` has a negative factor."""
    if isinstance(call, NegateCall) or (isinstance(call, ShiftCall) and call.sign < 0):
        return parts.swapped
    if not isinstance(call, ScaleCall):
        return parts
    if not isinstance(call.factor, Node):
        return parts.swapped if call.factor < 0 else parts
    upright = call.emit.value(call.factor) >= 0
    return Split(parts.plus.where(upright, parts.minus), parts.minus.where(upright, parts.plus))


def _messages(call: Call, multipliers: Adjoints) -> Messages:
    return tuple(None if m is None else Multiplier(call.operand(position), m) for position, m in enumerate(multipliers))


def _split_messages(call: Call, plus: Adjoints, minus: Adjoints) -> Messages:
    return tuple(
        None if p is None or n is None else SplitMultiplier(call.operand(position), Split(p, n))
        for position, (p, n) in enumerate(zip(plus, minus, strict=True))
    )


def _undefined(call: Call) -> UnsupportedRuleError:
    return UnsupportedRuleError(f"RevealCancel is not defined for matrix products: {describe_node(call.node)}")
