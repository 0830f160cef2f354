"""A root that is searched for: per layer and per input, by descent of the layer's response to what is left.

Notation as in `affine`. The signal s = u ⊙ x is the part of the input that explains the relevant units, u in [0, 1];
the root is what is left, x - s, and lies between 0 and x. Its response is f(x - s) = z - W s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

from passes.graphs.emitter import Value, aten
from passes.graphs.facts import Fact
from passes.operators.affine import AffineCall
from passes.operators.call import Call
from passes.relevance.protocol.found_root import ROOT, Root
from passes.relevance.protocol.messages import Form, Multiplier, Relevance, SecondOrder
from passes.relevance.protocol.rule import Messages
from passes.relevance.protocol.stabilise import without_zeros
from relcompile.errors import CompositeError
from relcompile.methods.rules.absorbed import Absorbed, handed_back
from relcompile.methods.rules.affine import Epsilon, Gamma
from relcompile.methods.rules.parameters import require_choice, require_positive

_MOST_STEPS: Final = 100


@final
@dataclass(frozen=True)
class LearnedRoot:
    """Relevance along the input to first order, and along a signal that was learned to second order.

    Equation: R_i = x_i Σ_k w_ki α_k + x_i s_i Σ_k w_ki² β_k if an activation hands down α and β (`BetweenRoots`);
        elsewhere LRP-γ, or LRP-ε if γ = 0. s = u ⊙ x, and u descends L(u) = 1/2 Σ_k ρ_k f(x - s)_k² with ρ = |α + β z|
        (elsewhere |R / z|) from u = 0, which is the root x: u' = [u + sign(x) Wᵀ(ρ ⊙ f(x - s)) / |W|ᵀ(ρ ⊙ |W||x|)],
        u ← [u + t (u' - u)], where [·] cuts to 0..1. The step to u' cannot raise L, whatever the signs of W; t is where
        L is least on the line through u'.

    Args:
        steps: of the descent, 0 to 100: each is part of the graph. With none s = x.
        gamma: >= 0; how much more contributions of the output's own sign count where no activation follows.
        bias: "shared" hands back what biases, stabilisers and the root keep: inputs that have relevance of its sign
            share it in proportion; "full" lets it go.
        epsilon: > 0, in units of the pre-activation.
    Shapes: as in `affine`; u and s like x.
    Conserves: exactly, wherever some input has relevance of the sign of what is handed back.
    Source: Zhang et al. 2024 (a root learned from the arriving relevance, a second-order term along s); Montavon et al.
        2019 (γ); the scaling of the gradient is that of simultaneous algebraic reconstruction, Gregor and Benson 2008.
    """

    steps: int = 1
    gamma: float = 0.25
    bias: Absorbed = "shared"
    epsilon: float = 1e-6
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier, SecondOrder, Relevance)
    needs: ClassVar[tuple[Fact[Any], ...]] = Gamma.needs

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)
        require_choice("bias", self.bias, ("shared", "full"))
        if not 0 <= self.gamma < math.inf:
            raise CompositeError(f"gamma={self.gamma} must be a finite number of at least 0")
        if not 0 <= self.steps <= _MOST_STEPS:
            raise CompositeError(f"steps={self.steps} must be a whole number from 0 to {_MOST_STEPS}")

    def propagate(self, call: AffineCall, arriving: Multiplier | SecondOrder | Relevance, /) -> Messages:
        expands = isinstance(arriving, SecondOrder)
        slope = arriving.first + call.output * arriving.second if expands else arriving.multiplier
        search = _Search(call, slope.magnitude)
        u = search.descend(self.steps)
        multiplier = _expanded(call, u, arriving) if expands else self._alone(call, arriving.relevance)
        if self.bias == "shared":
            multiplier = multiplier * handed_back(call.x * multiplier, arriving.relevance)
        ROOT.note(call.node, Root(call.x, call.x * u, search.loss(), search.loss(u)))
        return (Multiplier(call.x, multiplier),)

    def spread(self, call: AffineCall, /) -> Value:
        """Σ_i (w_ki x_i)² + b_k²."""
        x, W, b = call.x, call.weight, call.bias
        return call.apply(x * x, W * W, None if b is None else b * b)

    def _alone(self, call: AffineCall, R: Value) -> Value:
        """The m of R_x = x ⊙ m for a layer that no activation follows."""
        rule = Gamma(self.gamma, epsilon=self.epsilon) if self.gamma else Epsilon(self.epsilon)
        return rule.multiplier(call, R)


def _expanded(call: AffineCall, u: Value, orders: SecondOrder) -> Value:
    """The m of R_x = x ⊙ m, to second order along s = u ⊙ x."""
    W = call.weight
    return call.transposed(orders.first, W) + call.x * u * call.transposed(orders.second, W * W)


@dataclass(frozen=True)
class _Search:
    """The descent of L(u) = 1/2 Σ_k ρ_k (z - W(u ⊙ x))_k², ρ >= 0, over 0 <= u <= 1."""

    call: AffineCall
    rho: Value

    def descend(self, steps: int) -> Value:
        """U after so many steps from 0; ones if there are none."""
        x, W = self.call.x, self.call.weight
        if steps == 0:
            return x.ones()
        strengths = W.magnitude
        bound = self.call.transposed(self.rho * self.call.apply(x.magnitude, strengths), strengths)
        rate = x.emit.call(aten.reciprocal.default, without_zeros(bound))
        rate = rate.where(x >= 0, -rate)
        u = self._improved(None, rate)
        for _ in range(steps - 1):
            u = self._improved(u, rate)
        return u

    def loss(self, u: Value | None = None) -> Value:
        """L of every sample, (N, 1)."""
        response = self._response(u)
        return (self.rho * response * response).sum_per_sample() * 0.5

    def _improved(self, u: Value | None, rate: Value) -> Value:
        response = self._response(u)
        move = self.call.transposed(self.rho * response, self.call.weight) * rate
        moved = self._within(move if u is None else u + move)
        direction = moved if u is None else moved - u
        far = direction * self._length(direction, response)
        return self._within(far if u is None else u + far)

    def _length(self, direction: Value, response: Value) -> Value:
        """How far along `direction` L is least."""
        answer = self.call.apply(self.call.x * direction, self.call.weight)
        weighted = self.rho * answer
        fall, bend = ((weighted * value).sum_beside(direction) for value in (response, answer))
        return fall / without_zeros(bend)

    def _within(self, u: Value) -> Value:
        """[u]."""
        return self.call.emit.call(aten.clamp.default, u, 0, 1)

    def _response(self, u: Value | None) -> Value:
        """f(x - u ⊙ x); u = None is 0."""
        z = self.call.output
        return z if u is None else z - self.call.apply(self.call.x * u, self.call.weight)
