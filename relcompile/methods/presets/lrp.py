"""Layer-wise relevance propagation and Deep Taylor Decomposition: one rule for all layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from passes.relevance.protocol.refuse import Refuse
from passes.relevance.protocol.stabilise import Relative, Stabiliser
from relcompile.errors import CompositeError
from relcompile.metadata import HEADS
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.results import AsContrast
from relcompile.methods.rules.adjoint import Adjoint
from relcompile.methods.rules.affine import AlphaBeta, Contrastive, Epsilon, Gamma
from relcompile.methods.rules.input_layer import ByWeights, Flat, WSquared, ZBox
from relcompile.methods.rules.parameters import Bounds
from relcompile.methods.rules.pointwise import PassThrough, ScoresUnder, SignalTakesAll
from relcompile.methods.rules.products import Hold, Stop
from relcompile.methods.rules.residual import SplitByShare
from relcompile.methods.starts import One

NO_RULE_FOR_SOFTMAX: Final = Entry(
    Refuse(
        "a softmax inside a network has no rule under this method, but that the LRP methods take attention weights for "
        'constants; `--rule attnlrp` passes it, and in a composite file an entry with kind = "softmax" gives it a rule'
    ),
    kind="softmax",
)


def heads(rule: ScoresUnder) -> tuple[Entry, ...]:
    """A classifier's own softmax or sigmoid is stepped over, by `rule`."""
    operators = (Entry(rule, operator=operator, at_output=True) for operator in HEADS)
    return Entry(rule, kind="softmax", at_output=True), *operators


ENDS: Final[tuple[Entry, ...]] = heads(ScoresUnder())
SCORES: Final[tuple[Entry, ...]] = (*ENDS, NO_RULE_FOR_SOFTMAX)
# The statistics of norms and the weights of attention are constants, as in Ali et al. 2022.
HELD: Final[tuple[Entry, ...]] = (
    Entry(Hold("statistic"), role="statistic"),
    Entry(Hold("attention"), role="attention"),
    Entry(Stop(), kind="softmax", role="attention"),
    NO_RULE_FOR_SOFTMAX,
)
# What moves, selects, adds or scales values shares relevance in proportion: the exact adjoint.
PROPORTIONAL: Final[tuple[Entry, ...]] = (
    Entry(Adjoint(), kind="pool"),
    Entry(Adjoint(), kind="sum"),
    Entry(Adjoint(), kind="shift"),
    Entry(Adjoint(), kind="scale"),
    Entry(Adjoint(), kind="embedding"),
    Entry(Adjoint(), kind="structure"),
)
# What multiplies a signal by something between 0 and 1 is a constant, as in Arras et al. 2017; so is a divisor.
GATE: Final = Entry(Hold("gate"), role="gate")
# All but affine layers.
PASS: Final[tuple[Entry, ...]] = (
    *ENDS,
    *HELD,
    GATE,
    Entry(PassThrough(), kind="activation"),
    Entry(SignalTakesAll(), kind="product"),
    *PROPORTIONAL,
)
# A rule that leaves biases out of its denominators leaves added constants out, too.
PASS_WITHOUT_BIAS: Final[tuple[Entry, ...]] = (Entry(PassThrough(), kind="shift"), *PASS)

# Where the input does not matter to affine layers, relevance reaches sums that are 0: they cannot share by value.
_BY_WEIGHTS: tuple[Entry, ...] = (
    Entry(SplitByShare("uniform"), kind="sum"),
    Entry(ByWeights()),
    *PASS_WITHOUT_BIAS,
)


def lrp_0() -> Composite:
    """LRP-0: relevance in proportion to the contributions, no stabiliser.

    Equation: R_j = Σ_k x_j w_kj / z_k R_k
    Conserves: up to what the bias absorbs.
    Use: in theory and tests: without a stabiliser a unit near 0 can carry any amount of relevance.
    Source: Bach et al. 2015, equation 56.
    """
    return Composite("lrp-0", (Entry(Adjoint(), kind="affine"), *PASS))


def epsilon(epsilon: Stabiliser = 1e-6) -> Composite:
    """LRP-ε on every affine layer.

    Use: for evidence for and against a class, in two forward passes; noisy on deep convolutional networks.
    """
    return Composite("epsilon", (Entry(Epsilon(epsilon), kind="affine"), *PASS))


def relative_epsilon(epsilon: float = 0.25) -> Composite:
    """LRP-ε on every affine layer, ε in units of the layer: times the root mean square of z in each sample.

    Use: as `epsilon`, where layers differ in scale: one number fits all, and float32 reproduces the map.
    Source: Montavon et al. 2019, section 10.3, and their tutorial; zennit's `Stabilizer(norm_scale=True)`.
    """
    return Composite("relative-epsilon", (Entry(relative_epsilon_rule(epsilon), kind="affine"), *PASS))


def relative_epsilon_rule(epsilon: float = 0.25) -> Epsilon:
    """LRP-ε, ε in units of the layer."""
    return Epsilon(Relative(epsilon))


def gamma(gamma: float = 0.25) -> Composite:
    """LRP-γ on every affine layer.

    Use: for a map with less noise than `epsilon` that still shows evidence against the class.
    """
    return Composite("gamma", (Entry(Gamma(gamma), kind="affine"), *PASS))


def z_plus(
    epsilon: Stabiliser = 1e-9, bias: Any = "none", products: Any = "magnitudes", absorbed: Any = "lost"
) -> Composite:
    """z⁺ on every affine layer: Deep Taylor Decomposition's inner rule.

    Use: for a robust map of what supports the class in a ReLU network; nearly the same map for every class of a
        deep one. Linear bottlenecks and depthwise layers absorb most of it: `absorbed=shared` hands that back.
    """
    return alpha_beta(1, 0, bias, epsilon, products, absorbed, name="z+")


def alpha_beta(
    alpha: float,
    beta: float,
    bias: Any = "none",
    epsilon: Stabiliser = 1e-9,
    products: Any = "magnitudes",
    absorbed: Any = "lost",
    *,
    name: str | None = None,
) -> Composite:
    """LRP-αβ on every affine layer.

    Use: as z⁺ (β = 0), or with so much evidence against the class; a large β makes noise.
    """
    rule = AlphaBeta(alpha, beta, bias, epsilon, products, absorbed)
    shifts = PASS_WITHOUT_BIAS if bias == "none" else PASS
    return Composite(name or f"alpha{alpha:g}beta{beta:g}", (Entry(rule, kind="affine"), *shifts))


def w_squared() -> Composite:
    """w² on every affine layer, sum and average: the input does not matter.

    Use: on the first layer, where the input's zeros should get relevance too; alone it shows the architecture.
    """
    return Composite("w2", (Entry(WSquared(), kind="affine"), *_BY_WEIGHTS))


def flat() -> Composite:
    """Flat on every affine layer, sum and average: neither the input nor the weights matter.

    Use: on the first layer, for maps as smooth as the layer above; alone it shows the architecture.
    """
    return Composite("flat", (Entry(Flat(), kind="affine"), *_BY_WEIGHTS))


def z_box(bounds: Bounds | None = None) -> Composite:
    """zᴮ on the first layer, z⁺ above it.

    Use: as z⁺ on pixels with known bounds.
    """
    return z_plus().with_entries(box(bounds))


def deep_taylor(bounds: Bounds | None = None) -> Composite:
    """Deep Taylor Decomposition: zᴮ at the input (w² if its bounds are not known), z⁺ inside.

    Use: as the standard choice for ReLU networks on images; give the bounds of the input.
    Source: Montavon et al. 2017.
    """
    first = Entry(WSquared(), kind="affine", first=True) if bounds is None else box(bounds)
    return replace(z_plus().with_entries(first), name="dtd")


def excitation_backprop() -> Composite:
    """Excitation Backprop: z⁺ without a bias, from a probability of 1 at the target.

    Use: as z⁺, where the map should sum to 1 as a probability does.
    Source: Zhang et al. 2016, equation 4.
    """
    inner = z_plus()
    return Composite("excitation-backprop", inner.entries, start=One())


def contrastive_lrp() -> Composite:
    """Contrastive LRP on z⁺: what speaks for the target more than for all other classes together.

    Equation: R = max(0, n(R(y_k)) - n(R(y_¬k))), y_k = y ⊙ onehot(k), y_¬k = y ⊙ (1 - onehot(k)), n(R) = R / Σ R
    Conserves: no.
    Use: for what sets the class apart from the others, where z⁺ shows the same for all.
    Source: Sixt et al. 2020, section 5; Gu et al. 2018.
    """
    return replace(z_plus(), name="contrastive-lrp", result=AsContrast())


def contrastive_excitation_backprop() -> Composite:
    """Contrastive Excitation Backprop: the last layer's excitation less its inhibition, then z⁺.

    Use: as `contrastive-lrp`, in one pass; blue is what speaks for other classes.
    """
    last = Entry(Contrastive(), kind="affine", last=True)
    return replace(excitation_backprop().with_entries(last), name="contrastive-excitation-backprop")


def z_plus_rule(epsilon: float = 1e-9, products: Any = "magnitudes", absorbed: Any = "lost") -> AlphaBeta:
    """z⁺ without a bias."""
    return AlphaBeta(1, 0, epsilon=epsilon, products=products, absorbed=absorbed)


def box(bounds: Bounds | None) -> Entry:
    """zᴮ on the first layer."""
    return Entry(box_rule(bounds), kind="affine", first=True)


def box_rule(bounds: Bounds | None = None) -> ZBox:
    """zᴮ with the bounds of the input.

    Raises:
        CompositeError: they are not known.
    """
    if bounds is None:
        raise CompositeError(
            "zᴮ needs the bounds of the input: give bounds=(low, high) (--bounds LOW,HIGH), or the input's "
            "normalisation (--mean and --std)"
        )
    return ZBox(*bounds)
