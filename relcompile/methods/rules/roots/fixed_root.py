"""A root that is given, not searched for: one point that every unit of a layer is expanded around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias, final

import torch

from passes.graphs.emitter import Value
from passes.operators.affine import AffineCall
from passes.operators.call import Call
from passes.relevance.protocol.messages import Form, Relevance
from passes.relevance.protocol.rule import Messages
from passes.relevance.protocol.stabilise import stabilise
from relcompile.errors import CompositeError
from relcompile.methods.rules.parameters import Bound, like_input, require_positive

Reference: TypeAlias = Bound | torch.Tensor


@final
@dataclass(frozen=True, eq=False)
class FixedRoot:
    """Relevance in proportion to the contributions of x - x̃, the input as seen from a root (or reference) x̃.

    Equation: R_x = (x - x̃) ⊙ Wᵀ(R / ⟨W(x - x̃)⟩ε), the general root interface R_j = Σ_k v_j w_kj / (w_kᵀv) R_k with
        one direction v = x - x̃ for all units. x̃ = 0 is LRP-ε without a bias.

    Args:
        root: x̃: a number, one for each channel (axis 1 of x), or a tensor of the shape of one sample, (J...).
        epsilon: > 0, in units of the pre-activation.
    Shapes: as in `affine`; the result is relevance, since x = 0 may get some.
    Conserves: up to the stabiliser (the bias drops out).
    Source: Montavon et al. 2017, equation 8; Zhang et al. 2024, supplement (line search along v).
    """

    root: Reference = 0.0
    epsilon: float = 1e-6
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)

    def __repr__(self) -> str:
        shape = list(self.root.shape) if isinstance(self.root, torch.Tensor) else self.root
        return f"FixedRoot(root={shape}, epsilon={self.epsilon})"

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        v = call.x - self._constant(call)
        s = arriving.relevance / stabilise(call.apply(v, call.weight), self.epsilon)
        return (Relevance(call.x, v * call.transposed(s, call.weight)),)

    def _constant(self, call: AffineCall) -> Value:
        """x̃ as (1, J...)."""
        x, sample = call.x, tuple(call.x.shape[1:])
        if isinstance(self.root, torch.Tensor):
            if tuple(self.root.shape) != sample:
                raise CompositeError(f"root has the shape {list(self.root.shape)}, the input {list(sample)}")
            return call.emit.constant("root", self.root.detach().to(x.fake.dtype)[None])
        return like_input(call, "root", self.root)
