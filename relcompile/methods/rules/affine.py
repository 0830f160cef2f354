"""Rules for affine layers `z = W x + b` that divide by (a part of) the pre-activation z.

Notation: x (N, J), W (K, J), b (K,), z and R_z (N, K); v⁺ = max(v, 0), v⁻ = min(v, 0); ⟨z⟩ε = z + ε sign(z).
Every rule returns a multiplier m (N, J) with R_x = x ⊙ m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from passes.graphs.emitter import Value, aten
from passes.graphs.facts import Fact
from passes.operators.affine import AffineCall
from passes.operators.call import Call
from passes.relevance.protocol.messages import Form, Multiplier, Relevance
from passes.relevance.protocol.rule import Messages
from passes.relevance.protocol.stabilise import Relative, Stabiliser, stabilise, stabiliser_level
from relcompile.errors import CompositeError
from relcompile.methods.rules.absorbed import handed_back
from relcompile.methods.rules.contributions import Bias, Contributions, Products
from relcompile.methods.rules.parameters import require_choice, require_positive


@final
@dataclass(frozen=True)
class Epsilon:
    """LRP-ε: relevance in proportion to the contributions, small denominators damped.

    Equation: R_j = Σ_k x_j w_kj / ⟨z_k⟩ε R_k, with the bias inside z unless it is left out.

    Args:
        epsilon: > 0, in units of the pre-activation, or `Relative` to the root mean square of z in each sample.
        bias: "full" keeps it in z, where it absorbs its share; "none" leaves it out.
    Conserves: up to what the bias and the stabiliser absorb.
    Source: Bach et al. 2015, equation 58; zennit's and captum's `Epsilon`.
    """

    epsilon: Stabiliser = 1e-6
    bias: Literal["none", "full"] = "full"
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)
        require_choice("bias", self.bias, ("none", "full"))

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        return (Multiplier(call.x, self.multiplier(call, arriving.relevance)),)

    def multiplier(self, call: AffineCall, R: Value) -> Value:
        """The m of R_x = x ⊙ m."""
        z = call.output if self.bias == "full" or call.bias is None else call.apply(call.x, call.weight)
        return call.transposed(R / stabilise(z, self.epsilon), call.weight)


@final
@dataclass(frozen=True)
class AlphaBeta:
    """LRP-αβ: positive and negative contributions apart; α = 1, β = 0 is z⁺.

    Equation: R_j = Σ_k (α (x_j w_kj)⁺ / (z⁺_k + ε) - β (x_j w_kj)⁻ / (z⁻_k - ε)) R_k, where
        z⁺ = Σ_i (x_i w_ki)⁺ = W⁺x⁺ + W⁻x⁻ and z⁻ = Σ_i (x_i w_ki)⁻ = W⁻x⁺ + W⁺x⁻.

    Args:
        alpha: of the positive contributions, alpha - beta = 1.
        beta: of the negative ones, >= 0.
        bias: "none" leaves it out of the denominators (equation 5 of Sixt et al.), "split" adds b⁺ to z⁺ and b⁻ to
            z⁻ (zennit), "full" adds b to both (iNNvestigate).
        epsilon: > 0, in units of the pre-activation, or `Relative` to z⁺ and z⁻.
        products: for inputs of both signs: "magnitudes" finds z⁺ and z⁻ from W x and |W||x| in 4 passes with the
            forward one; "parts" from x⁺ and x⁻ in 5 (β = 0) or 9, for layers with few contributions of one sign.
        absorbed: what units without contributions of a sign, biases and stabilisers keep of a sample is "lost", or
            "shared": inputs that have relevance of its sign share it in proportion.
    Conserves: exactly without a bias, wherever a unit has contributions of both signs (of a positive one, if β = 0);
        what is shared conserves wherever some input has relevance of its sign.
    Source: Bach et al. 2015, equation 60; Montavon et al. 2017 (z⁺, Deep Taylor); Sixt et al. 2020, equation 5.
    """

    alpha: float = 1.0
    beta: float = 0.0
    bias: Bias = "none"
    epsilon: Stabiliser = 1e-9
    products: Products = "magnitudes"
    absorbed: Literal["lost", "shared"] = "lost"
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)
    needs: ClassVar[tuple[Fact[Any], ...]] = Contributions.needs

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)
        require_choice("bias", self.bias, ("none", "split", "full"))
        require_choice("products", self.products, ("magnitudes", "parts"))
        require_choice("absorbed", self.absorbed, ("lost", "shared"))
        if self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise CompositeError(f"alpha={self.alpha}, beta={self.beta}: alpha - beta must be 1, and beta at least 0")

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        contributions = Contributions(call, self.bias, self.products)
        m = _by_sign(contributions, arriving.relevance, self.alpha, self.beta, self.epsilon)
        if self.absorbed == "shared":
            m = m * handed_back(call.x * m, arriving.relevance)
        return (Multiplier(call.x, m),)


@final
@dataclass(frozen=True)
class Contrastive:
    """The excitation of a unit less its inhibition: z⁺ with W, less z⁺ with -W.

    Equation: R_j = Σ_k ((x_j w_kj)⁺ / (z⁺_k + ε) - (x_j w_kj)⁻ / (z⁻_k - ε)) R_k, z⁺ and z⁻ as in `AlphaBeta`,
        without the bias. For the last layer, where R is 1 at the target.

    Args:
        epsilon: > 0, in units of the pre-activation.
    Conserves: no; it sums to 0 wherever a unit has contributions of both signs.
    Source: Zhang et al. 2016, section 3.3; Sixt et al. 2020, section 5.
    """

    epsilon: float = 1e-9
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)
    needs: ClassVar[tuple[Fact[Any], ...]] = Contributions.needs

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        return (Multiplier(call.x, _by_sign(Contributions(call, "none"), arriving.relevance, 1, 1, self.epsilon)),)


@final
@dataclass(frozen=True)
class Gamma:
    """LRP-γ, generalised to inputs and outputs of both signs: contributions of the output's own sign weigh more.

    Equation: with W↑ = W + γ W⁺ and W↓ = W + γ W⁻, for z_k > 0: R_j = Σ_k (x_j⁺ w↑_kj + x_j⁻ w↓_kj) / ⟨z↑_k⟩ε R_k,
        z↑ = W↑x⁺ + W↓x⁻ + b + γ b⁺; for z_k < 0 with ↑ and ↓ exchanged; for x >= 0 and z > 0 this is W + γ W⁺.

    Args:
        gamma: > 0; 0.25 is zennit's default.
        bias: "full" keeps it in z; "plain" adds b to z↑ and z↓ instead of b + γ b⁺ and b + γ b⁻ (captum); "none"
            leaves it out of the denominators (not out of the sign of z).
        epsilon: > 0, in units of the pre-activation, or `Relative` to z↑ and z↓.
    Conserves: up to what the bias and the stabiliser absorb.
    Source: Montavon et al. 2019, section 10.2.2; the generalisation is zennit's.
    """

    gamma: float = 0.25
    bias: Literal["none", "plain", "full"] = "full"
    epsilon: Stabiliser = 1e-6
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)
    needs: ClassVar[tuple[Fact[Any], ...]] = Contributions.needs

    def __post_init__(self) -> None:
        require_positive("gamma", self.gamma)
        require_positive("epsilon", self.epsilon)
        require_choice("bias", self.bias, ("none", "plain", "full"))

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        return (Multiplier(call.x, self.multiplier(call, arriving.relevance)),)

    def multiplier(self, call: AffineCall, R: Value) -> Value:
        """The m of R_x = x ⊙ m; asks for `needs`, of the operand of `call`.

        With c = γ / 2 and Z = |W||x| + |b|: z↑, z↓ = (1 + c) z ± c Z.
        """
        contributions, c = Contributions(call, "split" if self.bias == "full" else "none"), self.gamma / 2
        above, below = self._divisors(call, contributions)
        up, down = R.where(call.output > 0, 0.0) / above, R.where(call.output < 0, 0.0) / below
        x, W = call.x, call.weight
        if contributions.one_sided:
            return call.transposed(up, W + W.positive * self.gamma) + call.transposed(down, W + W.negative * self.gamma)
        sign = x.emit.call(aten.sign.default, x)
        return call.transposed(up + down, W) * (1 + c) + sign * call.transposed(up - down, W.magnitude) * c

    def _divisors(self, call: AffineCall, contributions: Contributions) -> tuple[Value, Value]:
        """⟨z↑⟩ε and ⟨z↓⟩ε: where they divide, of the sign of the output, unless the bias is left out.

        max(z↑, 0) + ε = max(z↑ + ε, ε), and for x >= 0 z↑ + ε = W↑ x + (b↑ + ε), which is all there is where nothing
        arrives at z < 0.
        """
        emit, signed = call.x.emit, self.bias != "none" or call.bias is None
        fixed = 0.0 if isinstance(self.epsilon, Relative) or not signed else self.epsilon
        if contributions.one_sided:
            above = self._above(call, fixed)
            below = self._middle(call, contributions, 2) - above
        else:
            middle, apart = self._middle(call, contributions, 1), contributions.magnitude * (self.gamma / 2) + fixed
            above, below = middle + apart, middle - apart
        if fixed:
            return emit.call(aten.clamp_min.default, above, fixed), emit.call(aten.clamp_max.default, below, -fixed)
        if not signed:
            return stabilise(above, self.epsilon), stabilise(below, self.epsilon)
        levels = [stabiliser_level(z, self.epsilon) for z in (above, below)]
        return above.positive + levels[0], below.negative - levels[1]

    def _above(self, call: AffineCall, more: float) -> Value:
        """z↑ for x >= 0, and `more`."""
        b, raised = None if self.bias == "none" else call.bias, call.weight + call.weight.positive * self.gamma
        if b is None:
            return call.apply(call.x, raised) + more
        return call.apply(call.x, raised, (b + b.positive * self.gamma if self.bias == "full" else b) + more)

    def _middle(self, call: AffineCall, contributions: Contributions, times: int) -> Value:
        """(z↑ + z↓) / 2, so many times."""
        middle = contributions.total * (times * (1 + self.gamma / 2))
        return middle + call.per_output(call.bias) * times if self.bias == "plain" and call.bias is not None else middle


def _by_sign(contributions: Contributions, R: Value, alpha: float, beta: float, epsilon: Stabiliser) -> Value:
    """The m of shares α of the positive and -β of the negative contributions; α = 1 if β = 0."""
    P, bias = contributions.positive(), contributions.bias
    above = _denominator(P, bias, epsilon, 1)
    u = R / above
    if not beta:
        return contributions.of_positive(u)
    if contributions.negative_is_rest and bias != "full" and not isinstance(epsilon, Relative):
        below = R.emit.call(aten.clamp_max.default, contributions.total - above, -epsilon)  # min(N, 0) - ε
        return contributions.of_both(u, R / below, alpha, -beta)
    N = contributions.negative()
    v = R / _denominator(N, bias, epsilon, -1)
    return contributions.of_both(contributions.known(u, P), contributions.known(v, N), alpha, -beta)


def _denominator(z: Value, bias: Bias, epsilon: Stabiliser, sign: int) -> Value:
    """z⁺ + ε or z⁻ - ε; by the sign of z if a whole bias may have turned it."""
    if bias == "full":
        return stabilise(z, epsilon)
    level = stabiliser_level(z, epsilon)
    return z + level if sign > 0 else z - level
