"""Root learning as its authors released it, in three versions, and what it amounts to in closed form.

At every layer a root x - s is searched for, from the input x and the arriving relevance R, and relevance is shared out
by the signal s (`relcompile.methods.rules.roots.root_search`; Zhang et al. 2024). The search hardly moves s, so every
rule has a `closed_form` that leaves it out. Notation as in `affine`; a // b is a / (b + ε), and 0 where b = 0.

| version | dense | convolution | activation |
|---|---|---|---|
| 1 (10 April 2024) | 1/2 excitation + 1/10 inhibition, softmaxed | all weights, softmaxed | passes |
| 2 (12 April 2024) | 1/2 excitation, softmaxed | both signs of W, softmaxed | Taylor |
| 3 (June 2024, released) | excitation | W⁺, not divided | Taylor |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias, final

from passes.graphs.emitter import Value
from passes.operators.activation import ActivationCall
from passes.operators.affine import AffineCall
from passes.operators.call import Call
from passes.relevance.protocol.found_root import ROOT, Root
from passes.relevance.protocol.messages import Form, Multiplier, Relevance
from passes.relevance.protocol.rule import Messages
from passes.relevance.protocol.stabilise import safe_divide, without_zeros
from relcompile.methods.rules.parameters import require_positive
from relcompile.methods.rules.roots.root_losses import HingeEmbedding, StructuralSimilarity
from relcompile.methods.rules.roots.root_search import (
    AffineResponse,
    Descent,
    LinearRegion,
    PointwiseResponse,
    SoftmaxResponse,
    learn_root,
    softmax,
)

Version: TypeAlias = Literal[1, 2, 3]

_HINGE, _SIMILARITY = HingeEmbedding(), StructuralSimilarity()


def _dense(steps: int, step_size: float = 1.0) -> Descent:
    return Descent(_HINGE, steps, step_size, largest_gradient=1.0)


# For x⁺ and for x⁻.
_DENSE: Final[Mapping[Version, tuple[Descent, Descent]]] = {
    1: (_dense(50, 3.0), _dense(50, 3.0)),
    2: (_dense(20), _dense(20)),
    3: (_dense(1), _dense(5)),
}
# The similarity is descended: the answer is driven away from the relevance.
_CONVOLUTION: Final[Mapping[Version, Descent]] = {
    1: Descent(_SIMILARITY, 50, 1.0, largest_gradient=1.0),
    2: Descent(_SIMILARITY, 20, 1.0),
    3: Descent(_SIMILARITY, 5, 1.0),
}
_ACTIVATION: Final = Descent(_HINGE, 20, 3.0, start="ones", region=LinearRegion())


@final
@dataclass(frozen=True)
class ReleasedDense:
    """Excitation (and inhibition): contributions of one sign share relevance, with a learned signal for the input.

    Equation: R_x = Σ a (s₁ ⊙ W₁ᵀ(R₁ // z₁) + s₂ ⊙ W₂ᵀ(R₂ // z₂)), z₁ = W₁x⁺, z₂ = W₂x⁻, R_i = R |z_i| / (|z₁| + |z₂|);
        excitation (W₁, W₂) = (W⁺, W⁻), inhibition (W⁻, W⁺), a = (1/2, 1/10), (1/2, 0), (1, 0) in version 1, 2, 3.
        s₁ starts at x⁺ and descends the hinge of W₁s₁ (versions 1 and 2: of its softmax, whose gradient is 0).

    Args:
        version: 1, 2 or 3.
        closed_form: s = x in versions 1 and 2, which is exact. Version 3 keeps its search: one step, about 2 % of x,
            is its own closed form, and the five steps of s₂ vanish at compile time where x >= 0.
        epsilon: ε > 0, in units of the pre-activation; 1e-9 as released.
    Conserves: the share a, up to the drift of s.
    Source: Zhang et al. 2024, released code.
    """

    version: Version = 3
    closed_form: bool = True
    epsilon: float = 1e-9
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        W, R = call.weight, arriving.relevance
        relevance, root = self._half(call, W.positive, W.negative, R)
        if self.version < 3:
            relevance = relevance * 0.5
        if self.version == 1:
            relevance = relevance + self._half(call, W.negative, W.positive, R)[0] * 0.1
        ROOT.note(call.node, root)
        return (Relevance(call.x, relevance),)

    def _half(self, call: AffineCall, first: Value, second: Value, R: Value) -> tuple[Value, Root]:
        parts = (call.x.positive, first), (call.x.negative, second)
        answers = [call.apply(x, W) for x, W in parts]
        sizes = [z.magnitude for z in answers]
        total = without_zeros(sizes[0] + sizes[1])
        found = list[tuple[Value, Root]]()
        for (x, W), z, size, descent in zip(parts, answers, sizes, _DENSE[self.version], strict=True):
            share = R * (size / total)
            root = self._search(AffineResponse(call, W), x, share, descent)
            found.append((root.signal * call.transposed(safe_divide(share, z, self.epsilon), W), root))
        (a, root_a), (b, root_b) = found
        return a + b, root_a + root_b

    def _search(self, response: AffineResponse, x: Value, R: Value, descent: Descent) -> Root:
        if self.version == 3:
            return learn_root(response, x, R, descent)
        steps = closed(descent) if self.closed_form else descent
        return learn_root(SoftmaxResponse(response), x, softmax(R), steps)


@final
@dataclass(frozen=True)
class ReleasedConvolution:
    """A convolution around a learned signal.

    Equation: with z_± = W^± x and T = R / (|z₊| + |z₋|):
        version 1: R_x = (s - x̃) ⊙ Wᵀ(R // W s), the sum of gradients on the way from the root x̃ = x - s to s;
        version 2: R_x = s ⊙ (W⁺ᵀ(|z₊| T // z₊) + W⁻ᵀ(|z₋| T // z₋));
        version 3: R_x = s ⊙ W⁺ᵀ R, not divided by z.
        s starts at x and descends the similarity of its answer and R (both softmaxed over every map in versions 1, 2).

    Args:
        version: 1, 2 or 3.
        closed_form: s = x. Version 2 is then x ⊙ |W|ᵀ(R / |W|x) for x >= 0.
        ones: the input is taken to be all ones (the first convolution).
        epsilon: ε > 0, in units of the pre-activation; 1e-9 as released.
    Conserves: version 1 up to ε; version 2 exactly; version 3 not: it multiplies relevance by about z⁺.
    Source: Zhang et al. 2024, released code.
    """

    version: Version = 3
    closed_form: bool = True
    ones: bool = False
    epsilon: float = 1e-9
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        x, R = call.x.ones() if self.ones else call.x, arriving.relevance
        descent = closed(_CONVOLUTION[self.version]) if self.closed_form else _CONVOLUTION[self.version]
        response = AffineResponse(call, call.weight if self.version == 1 else call.weight.positive)
        if self.version == 3:
            root = learn_root(response, x, R, descent)
        else:
            axes = x.ndim - 2
            root = learn_root(SoftmaxResponse(response, axes), x, softmax(R, axes), descent)
        share: Callable[[AffineCall, Root, Value], Value] = (self._path, self._both, self._positive)[self.version - 1]
        factor = share(call, root, R)
        ROOT.note(call.node, root)
        if self.closed_form and not self.ones:
            return (Multiplier(x, factor),)
        signal = root.signal - root.point if self.version == 1 else root.signal
        return (Relevance(call.x, signal * factor),)

    def _path(self, call: AffineCall, root: Root, R: Value) -> Value:
        W = call.weight
        return call.transposed(safe_divide(R, call.apply(root.signal, W), self.epsilon), W)

    def _both(self, call: AffineCall, root: Root, R: Value) -> Value:
        answers = [(call.apply(root.x, W), W) for W in (call.weight.positive, call.weight.negative)]
        sizes = [z.magnitude for z, _ in answers]
        share = R / without_zeros(sizes[0] + sizes[1])
        parts = [
            call.transposed(safe_divide(share * size, z, self.epsilon), W)
            for (z, W), size in zip(answers, sizes, strict=True)
        ]
        return parts[0] + parts[1]

    def _positive(self, call: AffineCall, _root: Root, R: Value) -> Value:
        return call.transposed(R, call.weight.positive)


@final
@dataclass(frozen=True)
class ReleasedActivation:
    """The Taylor expansion of a stand-alone activation to second order, around a learned root.

    Equation: R_z = (R // f(z)) ⊙ (f'(z) s + f''(z) s² / 2). s starts at 1 and descends the hinge of f(s); as f(1) <= 1,
        it stays there, and for ReLU R_z = [z > 0] R / (z + ε): unbounded as z approaches 0, down to ε.

    Args:
        closed_form: s = 1, which is exact for every f with f(1) <= 1.
        epsilon: ε > 0, in units of f(z); 1e-9 as released.
    Conserves: no.
    Source: Zhang et al. 2024, released code.
    """

    closed_form: bool = True
    epsilon: float = 1e-9
    applies_to: ClassVar[tuple[type[Call], ...]] = (ActivationCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)

    def propagate(self, call: ActivationCall, arriving: Relevance, /) -> Messages:
        R = arriving.relevance
        descent = closed(_ACTIVATION) if self.closed_form else _ACTIVATION
        root = learn_root(PointwiseResponse(call), call.x, R, descent)
        share = safe_divide(R, call.output, self.epsilon)
        ROOT.note(call.node, root)
        return (Relevance(call.x, share * taylor(call, root.signal)),)


def taylor(call: ActivationCall, signal: Value) -> Value:
    """f'(z) s + f''(z) s² / 2: what the signal s adds to the answer, to second order."""
    return call.derivative(signal) + call.curvature() * signal * signal * 0.5


def closed(descent: Descent) -> Descent:
    """The same search without its steps."""
    return Descent(descent.loss, 0, start=descent.start)
