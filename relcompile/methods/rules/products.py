"""Rules of products, by what their operands are to each other: one is held, or each gets half."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final, get_args

from passes.operators.arithmetic import MatmulCall, ProductCall, QuotientCall, SumCall
from passes.operators.call import Call
from passes.operators.softmax import SoftmaxCall
from passes.relevance.protocol.messages import Form, Message, Multiplier, Relevance
from passes.relevance.protocol.rule import Messages
from passes.views.layer import LAYER
from passes.views.roles import Role
from relcompile.errors import CompositeError
from relcompile.methods.rules.parameters import require_choice


@final
@dataclass(frozen=True)
class Hold:
    """One operand is taken for a constant: its sibling gets everything.

    Equation: y = a c, c held: m_a = cᵀ m_y, R_c = 0, so that R_a = R_y. In a sum, c absorbs its share.

    Args:
        role: which operand: the statistic of a norm, its mean, attention weights, a gate.
    Conserves: exactly in products; in sums up to what the operand absorbs.
    Source: Ali et al. 2022 (norms, attention); Arras et al. 2017 (gates); Achtibat et al. 2024, proposition 3.4.
    """

    role: Role = "statistic"
    applies_to: ClassVar[tuple[type[Call], ...]] = (ProductCall, MatmulCall, QuotientCall, SumCall)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, Relevance)

    def __post_init__(self) -> None:
        require_choice("role", self.role, get_args(Role))

    def propagate(self, call: Call, arriving: Message, /) -> Messages:
        held = LAYER.of(call.node).roles.get(self.role)
        if held is None:
            raise CompositeError(f"{self} has nothing to hold at {call.layer}: give its entry role={self.role!r}")
        if len(call.operands) == 1:
            return (None,)
        other = call.operand(1 - held)
        kept = not isinstance(call, MatmulCall | SumCall) and other.shape == call.output.shape
        if kept and isinstance(arriving, Relevance):
            message: Message | None = Relevance(other, arriving.relevance)  # a multiplier may have a pole
        else:
            part = call.adjoint(arriving.multiplier)[1 - held]
            message = None if part is None else Multiplier(other, part)
        return tuple(message if position != held else None for position in range(2))


@final
@dataclass(frozen=True)
class Half:
    """Each of two factors gets half of the product's relevance.

    Equation: y = a b: m_a = ½ bᵀ m_y, m_b = ½ aᵀ m_y. Elementwise R_a = R_b = R_y / 2.
    Conserves: exactly.
    Source: Achtibat et al. 2024, equation 8 and proposition 3.3.
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (ProductCall, MatmulCall)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier,)

    def propagate(self, call: ProductCall | MatmulCall, arriving: Message, /) -> Messages:
        parts = call.adjoint(arriving.multiplier * 0.5)
        return tuple(
            None if part is None else Multiplier(call.operand(position), part) for position, part in enumerate(parts)
        )


@final
@dataclass(frozen=True)
class Stop:
    """Nothing passes: the operator's output is taken for a constant.

    Equation: m_x = 0
    Conserves: no.
    Source: Ali et al. 2022, section 3.1 (attention weights).
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (SoftmaxCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, Relevance)

    def propagate(self, _call: SoftmaxCall, _arriving: Message, /) -> Messages:
        return (None,)
