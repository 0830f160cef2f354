"""Residual splits: how the relevance of a sum is shared among its summands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, final

from passes.graphs.emitter import Value
from passes.operators.arithmetic import SumCall
from passes.operators.call import Call
from passes.relevance.protocol.messages import Form, Relevance
from passes.relevance.protocol.rule import Messages
from relcompile.errors import CompositeError
from relcompile.methods.rules.parameters import require_choice

Share: TypeAlias = Literal["absolute", "positive", "uniform"]
Branch: TypeAlias = Literal["identity", "main"]


@final
@dataclass(frozen=True)
class SplitByShare:
    """Relevance of y = a + b in proportion to |a| : |b|, or a⁺ : b⁺, or in equal halves.

    Equation: R_a = |a| / (|a| + |b| + ε) R_y; the same with a⁺ and b⁺; or R_a = R_y / 2.

    Args:
        share: absolute, positive or uniform. (The proportional split a : b is the exact adjoint, and free.)
        epsilon: > 0, in units of the summands.
    Conserves: exactly, wherever the denominator is not 0.
    Source: Zhang et al. 2024 (absolute); Otsuki et al. 2024 (ratios of branches).
    """

    share: Share = "absolute"
    epsilon: float = 1e-9
    applies_to: ClassVar[tuple[type[Call], ...]] = (SumCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def __post_init__(self) -> None:
        require_choice("share", self.share, ("absolute", "positive", "uniform"))

    def propagate(self, call: SumCall, arriving: Relevance, /) -> Messages:
        shares = self._shares(call, arriving.relevance)
        return tuple(
            Relevance(call.operand(position), share.sum_to(call.operand(position)))
            for position, share in enumerate(shares)
        )

    def _shares(self, call: SumCall, relevance: Value) -> list[Value]:
        if self.share == "uniform":
            return [relevance * 0.5] * 2
        summands = [call.summand(position).expand_like(call.output) for position in range(2)]
        if self.share == "absolute":
            measures = [summand.magnitude for summand in summands]
        else:
            measures = [summand.positive for summand in summands]
        total = measures[0] + measures[1] + self.epsilon
        return [relevance * (measure / total) for measure in measures]


@final
@dataclass(frozen=True)
class OneBranch:
    """All relevance of a residual connection goes to one branch: the identity, or the layers beside it.

    Equation: R_identity = R_y, R_main = 0, or the reverse. The identity is the operand that fewer operators lie
        behind.
    Conserves: exactly.
    Source: Otsuki et al. 2024 (identity-only, main-branch-only).
    """

    branch: Branch = "identity"
    applies_to: ClassVar[tuple[type[Call], ...]] = (SumCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def __post_init__(self) -> None:
        require_choice("branch", self.branch, ("identity", "main"))

    def propagate(self, call: SumCall, arriving: Relevance, /) -> Messages:
        identity = call.identity
        if identity is None:
            raise CompositeError(f"{call.node.name} adds two branches of equal length: neither is the identity")
        chosen = identity if self.branch == "identity" else 1 - identity
        operand = call.operand(chosen)
        message = Relevance(operand, arriving.relevance.sum_to(operand))
        return tuple(message if position == chosen else None for position in range(2))
