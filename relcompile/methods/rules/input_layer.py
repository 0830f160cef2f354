"""Rules that give relevance to inputs that are zero, meant for the first layer: w², flat, zᴮ.

Notation as in `affine`. They return relevance, not a multiplier. Padding contributes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from passes.graphs.emitter import Value
from passes.operators.affine import AffineCall
from passes.operators.arithmetic import ReduceCall
from passes.operators.call import Call, UnaryCall
from passes.operators.pooling import AdaptiveAverageCall, AveragePoolCall
from passes.relevance.protocol.messages import Form, Relevance
from passes.relevance.protocol.rule import Messages
from passes.relevance.protocol.stabilise import stabilise
from relcompile.errors import CompositeError
from relcompile.methods.rules.parameters import Bound, as_tuple, like_input, require_choice, require_positive


@final
@dataclass(frozen=True)
class WSquared:
    """w²: relevance in proportion to the squared weights; the input does not matter.

    Equation: R_j = Σ_k w_kj² / (Σ_i w_ki² + ε) R_k

    Args:
        epsilon: > 0, in units of the squared weight.
        bias: "none" leaves it out, "squared" adds b_k² to the denominator (zennit).
    Conserves: exactly (no bias enters).
    Source: Montavon et al. 2017, equation 12 (root along v = w).
    """

    epsilon: float = 1e-9
    bias: Literal["none", "squared"] = "none"
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)
        require_choice("bias", self.bias, ("none", "squared"))

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        squared = None if call.bias is None or self.bias == "none" else call.bias * call.bias
        return _by_weights(call, arriving, call.weight * call.weight, self.epsilon, squared)


@final
@dataclass(frozen=True)
class Flat:
    """Flat: every input of a unit gets the same share.

    Equation: R_j = Σ_k R_k / (number of inputs of k + ε), the sum over the units that see j.

    Args:
        epsilon: > 0; 1e-6 is zennit's.
    Conserves: exactly.
    Source: Lapuschkin et al. 2019; zennit's `Flat`.
    """

    epsilon: float = 1e-9
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        return _by_weights(call, arriving, call.weight.ones(), self.epsilon)


@final
@dataclass(frozen=True)
class ZBox:
    """zᴮ: the root lies in a corner of the box that the inputs come from.

    Equation: R_j = Σ_k (x_j w_kj - l_j w⁺_kj - h_j w⁻_kj) / ⟨Σ_i (x_i w_ki - l_i w⁺_ki - h_i w⁻_ki)⟩ε R_k
    Args:
        low, high: bounds of the input, one number or one per channel; low <= 0 <= high in the published rule.
        epsilon: > 0, in units of the pre-activation.
    Conserves: exactly (the bias drops out).
    Source: Montavon et al. 2017, equation 13.
    """

    low: Bound
    high: Bound
    epsilon: float = 1e-6
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)
        pairs = zip(as_tuple(self.low), as_tuple(self.high), strict=False)
        if any(low >= high for low, high in pairs):
            raise CompositeError(f"bounds low={self.low}, high={self.high}: every low must be below its high")

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        x, W = call.x, call.weight
        low, high = like_input(call, "low", self.low), like_input(call, "high", self.high)
        z = call.apply(x, W) - (call.apply(low, W.positive) + call.apply(high, W.negative))
        s = arriving.relevance / stabilise(z, self.epsilon)
        relevance = x * call.transposed(s, W)
        relevance = relevance - low * call.transposed(s, W.positive) - high * call.transposed(s, W.negative)
        return (Relevance(x, relevance),)


def _by_weights(
    call: AffineCall, arriving: Relevance, weight: Value, epsilon: float, bias: Value | None = None
) -> Messages:
    total = call.apply(like_input(call, "ones", 1.0), weight, bias) + epsilon
    return (Relevance(call.x, call.transposed(arriving.relevance / total, weight)),)


@final
@dataclass(frozen=True)
class ByWeights:
    """Averages and sums share by their weights; the input does not matter.

    Equation: R_j = Σ_k w_kj / Σ_i w_ki R_k, over the inputs that are not padding.
    Conserves: exactly.
    Source: Montavon et al. 2017, equation 12: w², for weights that are all equal.
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (ReduceCall, AveragePoolCall, AdaptiveAverageCall)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def propagate(self, call: UnaryCall, arriving: Relevance, /) -> Messages:
        total = call.run(like_input(call, "ones", 1.0))
        (relevance,) = call.adjoint(arriving.relevance / total)
        return (None if relevance is None else Relevance(call.x, relevance),)
