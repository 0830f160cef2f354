"""The exact adjoint: gradients, and every operator that only routes or averages relevance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from passes.operators.arithmetic import NegateCall, ScaleCall
from passes.operators.call import Call
from passes.operators.embedding import EmbeddingCall
from passes.relevance.protocol.messages import Form, Multiplier, Relevance
from passes.relevance.protocol.rule import Messages


@final
@dataclass(frozen=True)
class Adjoint:
    """The operator's own vector-Jacobian product.

    Equation: m_in = (∂y/∂x)ᵀ m_out. With R = x ⊙ m this is the gradient times the input; for linear operators
        without a bias (pools, sums, views, residual connections) it is the proportional split
        R_i = Σ_j x_i w_ij / Σ_k x_k w_kj R_j. An index that is embedded gets the sum over the features of its row.
    Shapes: m_out like y, m_in like the operand.
    Conserves: exactly for operators that are linear without a bias; otherwise it does not claim to.
    Source: Baehrens et al. 2010; Bach et al. 2015, equation 56 (the proportional split).
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (Call,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, Relevance)

    def propagate(self, call: Call, arriving: Multiplier | Relevance, /) -> Messages:
        if isinstance(call, ScaleCall | NegateCall) and isinstance(arriving, Relevance):
            relevance = arriving.relevance.sum_to(call.operand(0))  # y = c x: the multiplier would be divided by x
            return (Relevance(call.operand(0), relevance),)
        if isinstance(call, EmbeddingCall):
            of_index = arriving.relevance.sum([-1])
            return (Multiplier(call.operand(0), of_index, of_index),)
        if call.moves_values and isinstance(arriving, Relevance):
            parts, form = call.adjoint(arriving.relevance), Relevance
        else:
            parts, form = call.adjoint(arriving.multiplier), Multiplier
        return tuple(
            None if part is None else form(call.operand(position), part) for position, part in enumerate(parts)
        )


@final
@dataclass(frozen=True)
class Fallback:
    """The exact adjoint where a method has no answer: the user asked for it, and it is not the method's.

    Equation: m_in = (∂y/∂x)ᵀ m_out, as of `Adjoint`.
    Shapes: as of `Adjoint`.
    Conserves: no.
    Source: the gradient; no paper claims that it is a rule of the method around it.
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = Adjoint.applies_to
    reads: ClassVar[tuple[Form, ...]] = Adjoint.reads

    def propagate(self, call: Call, arriving: Multiplier | Relevance, /) -> Messages:
        return Adjoint().propagate(call, arriving)
