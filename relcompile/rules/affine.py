"""Rules for affine layers `z = W x + b` that divide by (a part of) the pre-activation z.

Notation: x (N, J), W (K, J), b (K,), z and R_z (N, K); v⁺ = max(v, 0), v⁻ = min(v, 0); ⟨z⟩ε = z + ε sign(z).
Every rule returns a multiplier m (N, J) with R_x = x ⊙ m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, final

from passes.emitter import Value
from passes.messages import Message, Messages, stabilise
from passes.operators.affine import AffineCall
from passes.operators.call import Call
from relcompile.errors import CompositeError

Bias: TypeAlias = Literal["none", "positive", "full"]


@final
@dataclass(frozen=True)
class Epsilon:
    """LRP-ε: relevance in proportion to the contributions, small denominators damped.

    Equation: R_j = Σ_k x_j w_kj / ⟨z_k⟩ε R_k, with the bias inside z.

    Args:
        epsilon: > 0, in units of the pre-activation.
    Conserves: up to what the bias and the stabiliser absorb.
    Source: Bach et al. 2015, equation 58; zennit's and captum's `Epsilon`.
    """

    epsilon: float = 1e-6
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)

    def propagate(self, call: AffineCall, arriving: Message, /) -> Messages:
        s = arriving.relevance / stabilise(call.output, self.epsilon)
        return (Message.of_multiplier(call.x, call.transposed(s, call.weight)),)


@final
@dataclass(frozen=True)
class ZPlus:
    """z⁺: relevance in proportion to the positive contributions only.

    Equation: R_j = Σ_k (x_j w_kj)⁺ / (Σ_i (x_i w_ki)⁺ + ε) R_k, where
        Σ_i (x_i w_ki)⁺ = W⁺x⁺ + W⁻x⁻; for x ≥ 0 this is W⁺x.

    Args:
        bias: "none" leaves it out of the denominator (the paper's rule), "positive" adds b⁺ (zennit's default),
            "full" adds b.
        epsilon: > 0, added to the denominator, in units of the pre-activation.
    Conserves: exactly without a bias, wherever some contribution is positive.
    Source: Montavon et al. 2017 (z⁺-rule, Deep Taylor); Sixt et al. 2020, equation 5; α1β0 of Bach et al. 2015.
    """

    bias: Bias = "none"
    epsilon: float = 1e-9
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)
        require_choice("bias", self.bias, ("none", "positive", "full"))

    def propagate(self, call: AffineCall, arriving: Message, /) -> Messages:
        x, W = call.x, call.weight
        z = call.apply(x.positive, W.positive, self._bias(call)) + call.apply(x.negative, W.negative)
        denominator = stabilise(z, self.epsilon) if self.bias == "full" else z + self.epsilon
        s = arriving.relevance / denominator
        of_positive, of_negative = call.transposed(s, W.positive), call.transposed(s, W.negative)
        return (Message.of_multiplier(x, of_positive.where(x >= 0, of_negative)),)

    def _bias(self, call: AffineCall) -> Value | None:
        if call.bias is None or self.bias == "none":
            return None
        return call.bias.positive if self.bias == "positive" else call.bias


def require_positive(name: str, value: float) -> None:
    """Refuse a parameter that is not a finite number above 0."""
    if not 0 < value < float("inf"):
        raise CompositeError(f"{name}={value} must be a finite number above 0")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a parameter that is none of `choices`."""
    if value not in choices:
        raise CompositeError(f"{name}={value!r} must be one of {', '.join(choices)}")
