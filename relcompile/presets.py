"""The named rules and composites, as two tables: what `--rule` and `--layer` accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from passes.messages import AnyRule
from relcompile.calibration.store import HOW_TO, Calibration
from relcompile.composites import Composite, Entry
from relcompile.errors import CompositeError
from relcompile.rules.adjoint import Adjoint
from relcompile.rules.affine import AlphaBeta, Contrastive, Epsilon, Gamma
from relcompile.rules.deeplift import Rescale, RevealCancel
from relcompile.rules.differences import (
    AffineDifference,
    CrossTerms,
    EachPart,
    MatmulDifference,
    MaxDifference,
    SumOfDifferences,
)
from relcompile.rules.fixed_root import FixedRoot
from relcompile.rules.guided import BetaSmooth, Deconvnet, Guided, RectGrad
from relcompile.rules.input_layer import Bound, Flat, WSquared, ZBox
from relcompile.rules.pattern import Normalised, PatternAttribution, PatternNet, Patterns, RelevanceGradient
from relcompile.rules.pointwise import PassThrough, SignalTakesAll
from relcompile.rules.released_roots import ReleasedActivation, ReleasedConvolution, ReleasedDense, Version
from relcompile.rules.residual import SplitByShare
from relcompile.rules.sampling import GaussianNoise, StraightPath, as_count

Bounds: TypeAlias = tuple[Bound, Bound]

_MAXIMA = ("max_pool2d", "max_pool3d", "amax", "amin", "maximum", "minimum")
_KEPT, _CROSSED = AffineDifference("kept"), MaxDifference("crossed")

_PASS: tuple[Entry, ...] = (
    Entry(PassThrough(), kind="activation"),
    Entry(SignalTakesAll(), kind="product"),
)

# A rule that leaves biases out of its denominators leaves added constants out, too.
_PASS_WITHOUT_BIAS: tuple[Entry, ...] = (*_PASS, Entry(PassThrough(), kind="shift"))


def gradient() -> Composite:
    """The gradient of the target's score with respect to the input."""
    return Composite("gradient", start="cotangent", result="multiplier")


def gradient_times_input() -> Composite:
    """The gradient times the input."""
    return Composite("gradient*input", start="cotangent")


def lrp_0() -> Composite:
    """LRP-0: relevance in proportion to the contributions, no stabiliser.

    Equation: R_j = Σ_k x_j w_kj / z_k R_k
    Conserves: up to what the bias absorbs.
    Source: Bach et al. 2015, equation 56.
    """
    return Composite("lrp-0", _PASS)


def epsilon(epsilon: float = 1e-6) -> Composite:
    """LRP-ε on every affine layer."""
    return Composite("epsilon", (Entry(Epsilon(epsilon), kind="affine"), *_PASS))


def gamma(gamma: float = 0.25) -> Composite:
    """LRP-γ on every affine layer."""
    return Composite("gamma", (Entry(Gamma(gamma), kind="affine"), *_PASS))


def z_plus(epsilon: float = 1e-9, bias: Any = "none") -> Composite:
    """z⁺ on every affine layer: Deep Taylor Decomposition's inner rule."""
    return alpha_beta(1, 0, bias, epsilon, name="z+")


def alpha_beta(
    alpha: float, beta: float, bias: Any = "none", epsilon: float = 1e-9, name: str | None = None
) -> Composite:
    """LRP-αβ on every affine layer."""
    rule = AlphaBeta(alpha, beta, bias, epsilon)
    shifts = _PASS_WITHOUT_BIAS if bias == "none" else _PASS
    return Composite(name or f"alpha{alpha:g}beta{beta:g}", (Entry(rule, kind="affine"), *shifts))


def w_squared() -> Composite:
    """w² on every affine layer: the input does not matter."""
    return Composite("w2", (Entry(WSquared(), kind="affine"), *_PASS_WITHOUT_BIAS))


def flat() -> Composite:
    """Flat on every affine layer: neither the input nor the weights matter."""
    return Composite("flat", (Entry(Flat(), kind="affine"), *_PASS_WITHOUT_BIAS))


def z_box(bounds: Bounds | None = None) -> Composite:
    """zᴮ on the first layer, z⁺ above it."""
    return z_plus().with_entries(_box(bounds))


def deep_taylor(bounds: Bounds | None = None) -> Composite:
    """Deep Taylor Decomposition: zᴮ at the input (w² if its bounds are not known), z⁺ inside.

    Source: Montavon et al. 2017.
    """
    first = Entry(WSquared(), kind="affine", first=True) if bounds is None else _box(bounds)
    return _renamed(z_plus().with_entries(first), "dtd")


def excitation_backprop() -> Composite:
    """Excitation Backprop: z⁺ without a bias, from a probability of 1 at the target.

    Source: Zhang et al. 2016, equation 4.
    """
    inner = z_plus()
    return Composite("excitation-backprop", inner.entries, start="one")


def contrastive_lrp() -> Composite:
    """Contrastive LRP on z⁺: what speaks for the target more than for all other classes together.

    Equation: R = max(0, n(R(y_k)) - n(R(y_¬k))), y_k = y ⊙ onehot(k), y_¬k = y ⊙ (1 - onehot(k)), n(R) = R / Σ R
    Conserves: no.
    Source: Sixt et al. 2020, section 5; Gu et al. 2018.
    """
    return replace(z_plus(), name="contrastive-lrp", result="contrast")


def contrastive_excitation_backprop() -> Composite:
    """Contrastive Excitation Backprop: the last layer's excitation less its inhibition, then z⁺."""
    last = Entry(Contrastive(), kind="affine", last=True)
    return replace(excitation_backprop().with_entries(last), name="contrastive-excitation-backprop")


def grad_cam() -> Composite:
    """Grad-CAM: the last feature map (or that of `--at`), weighted by its mean gradients, at the input's size.

    Equation: R = upsample(max(0, Σ_c w_c A_c)), w_c = spatial mean of ∂y/∂A_c; bilinear, corners not aligned
    Conserves: no.
    Source: Selvaraju et al. 2017, equations 1 and 2.
    """
    return Composite("grad-cam", start="cotangent", result="activation-map")


def smoothgrad(count: float = 25, level: float = 0.15) -> Composite:
    """SmoothGrad: the mean gradient over noisy copies of the input.

    Equation: R(x) = 1/n Σ_i ∂y/∂x (x + σ ξ_i), ξ_i ~ N(0, 1), σ = level (max x - min x)
    Conserves: no.
    Source: Smilkov et al. 2017.
    """
    return replace(gradient(), name="smoothgrad", sampling=GaussianNoise(as_count(count), level))


def integrated_gradients(count: float = 32, baseline: Bound = 0.0) -> Composite:
    """Integrated Gradients: the mean gradient on the way from a baseline, times the way.

    Equation: R(x) = (x - x₀) ⊙ 1/n Σ_i ∂y/∂x (x₀ + (i - ½)/n (x - x₀)) (the midpoint rule)
    Conserves: Σ R -> f(x) - f(x₀) as n grows.
    Source: Sundararajan et al. 2017, equation 3.
    """
    return replace(gradient(), name="integrated-gradients", sampling=StraightPath(as_count(count), baseline))


def guided_backprop() -> Composite:
    """Guided Backprop: gradients that are negative at an activation are dropped."""
    entries = (Entry(Guided(), kind="activation"),)
    return Composite("guided-backprop", entries, start="cotangent", result="multiplier")


def deconvnet() -> Composite:
    """Deconvnet: as Guided Backprop, without the mask of the forward pass."""
    entries = (Entry(Deconvnet(), kind="activation"),)
    return Composite("deconvnet", entries, start="cotangent", result="multiplier")


def rectgrad(q: float = 98.0) -> Composite:
    """RectGrad: only gradients of the most important units of every layer pass."""
    return Composite("rectgrad", (Entry(RectGrad(q), kind="activation"),), start="cotangent", result="multiplier")


def beta_smooth(beta: float = 10.0) -> Composite:
    """Gradients with every ReLU smoothed."""
    entries = (Entry(BetaSmooth(beta), operator="relu"),)
    return Composite("beta-smooth", entries, start="cotangent", result="multiplier")


def lrp_cmp(alpha: float, beta: float) -> Composite:
    """LRP-CMP: ε on dense layers, αβ on convolutions.

    Equation: R_j = Σ_k x_j w_kj / ⟨z_k⟩ε R_k (dense, ε = 1e-10); LRP-αβ (convolutions)
    Conserves: as its parts.
    Source: Sixt et al. 2020, section 5; Kohlbrenner et al. 2020.
    """
    dense = Entry(Epsilon(1e-10), operator="linear")
    return _renamed(alpha_beta(alpha, beta).with_entries(dense), f"lrp-cmp-a{alpha:g}b{beta:g}")


def epsilon_and(convolutions: AnyRule, name: str, *first: Entry) -> Composite:
    """ε on dense layers, another rule on convolutions, perhaps a third on the first layer: zennit's presets."""
    entries = (*first, Entry(convolutions, operator="convolution"), Entry(Epsilon(), kind="affine"), *_PASS)
    return Composite(name, entries)


def epsilon_gamma_box(bounds: Bounds | None = None) -> Composite:
    """ε on dense layers, γ on convolutions, zᴮ on the first layer."""
    return epsilon_and(Gamma(), "epsilon-gamma-box", _box(bounds))


def deeplift_rescale(reference: float = 0.0) -> Composite:
    """DeepLIFT Rescale: differences from a reference input, through the chords of activations."""
    return deeplift("deeplift-rescale", Rescale(), reference=reference)


def deeplift_revealcancel(reference: float = 0.0) -> Composite:
    """DeepLIFT RevealCancel: positive and negative contributions apart."""
    return deeplift("deeplift-revealcancel", RevealCancel(), reference=reference)


def deeplift_ablation(cross_terms: CrossTerms, name: str, reference: float = 0.0) -> Composite:
    """DeepLIFT Rescale without the cross terms between positive and negative contributions.

    Equation: m_x = W⁺ᵀm where Δx ≠ 0, Wᵀm where Δx = 0 (-text: W⁺ᵀm where Δx > 0, W⁻ᵀm where Δx < 0)
    Conserves: no.
    Source: Sixt et al. 2020, section 5: as their code has it, and (-text) as they describe it.
    """
    return deeplift(name, Rescale(), AffineDifference(cross_terms), reference=reference)


def deeplift(
    name: str,
    activations: AnyRule,
    affine: AnyRule = _KEPT,
    maxima: AnyRule = _CROSSED,
    *,
    reference: float = 0.0,
) -> Composite:
    """One of DeepLIFT's methods: its rule of activations, of affine layers and of maxima."""
    entries = (
        Entry(activations, kind="activation"),
        Entry(affine, kind="affine"),
        *(Entry(maxima, operator=operator) for operator in _MAXIMA),
        Entry(MatmulDifference(), operator="matmul"),
        Entry(MatmulDifference(), operator="bmm"),
        Entry(SumOfDifferences(), kind="sum"),
        Entry(SumOfDifferences(), kind="product"),
    )
    return Composite(name, entries, start="cotangent", fallback=EachPart(), reference=reference)


def montavon(bounds: Bounds | None = None) -> Composite:
    """LRP-0 in the upper third, LRP-ε in the middle, LRP-γ in the lower third, zᴮ at the input.

    Equation: R_j = Σ_k x_j ρ(w_kj) / ⟨Σ_i x_i ρ(w_ki)⟩ε R_k, ρ(w) = w + γ w⁺ below, w above
    Conserves: as its parts.
    Source: Montavon et al. 2019, section 10.3.
    """
    entries = (
        _box(bounds),
        Entry(Gamma(0.25), kind="affine", depth=(0, 1 / 3)),
        Entry(Epsilon(0.25), kind="affine", depth=(1 / 3, 2 / 3)),
    )
    return Composite("montavon", (*entries, *_PASS))


def pattern_net(calibration: Calibration | None = None, *, normalise: bool = True) -> Composite:
    """PatternNet: the signal that the network saw, by a gradient with patterns in place of weights.

    Signals are normalised at bottlenecks, as iNNvestigate does it: they grow with every layer, in deep networks beyond
    what float32 can hold.

    Equation: s_x = Aᵀ s_z, divided by max|s_z| at bottlenecks
    Conserves: no.
    Source: Kindermans et al. 2018.
    """
    rule = PatternNet(_patterns(calibration))
    entries = (Entry(rule, kind="affine"), Entry(Adjoint(), kind="activation"))
    return Composite("patternnet", _normalised(entries, normalise), start="signal", result="multiplier")


def pattern_attribution(calibration: Calibration | None = None, *, normalise: bool = False) -> Composite:
    """PatternAttribution: what the signal in the input contributes to the score.

    Residual connections, which the paper does not have, share in equal parts.
    """
    entries = (
        Entry(PatternAttribution(_patterns(calibration)), kind="affine"),
        Entry(RelevanceGradient(), kind="activation"),
        Entry(RelevanceGradient(), kind="pool"),
        Entry(SplitByShare("uniform"), kind="sum"),
    )
    return Composite("patternattribution", (*_normalised(entries, normalise), *_PASS_WITHOUT_BIAS))


def _normalised(entries: tuple[Entry, ...], normalise: bool) -> tuple[Entry, ...]:
    """The same, and where they stand at a bottleneck, with what arrives divided by its largest magnitude."""
    narrow = [replace(entry, rule=Normalised(entry.rule), bottleneck=True) for entry in entries] if normalise else []
    return (*narrow, *entries)


def pattern_rule(calibration: Calibration | None = None) -> PatternAttribution:
    """PatternAttribution for one layer."""
    return PatternAttribution(_patterns(calibration))


def _patterns(calibration: Calibration | None) -> Patterns:
    if calibration is None:
        raise CompositeError(
            f"pattern rules need patterns of this model: make them with `{HOW_TO}`, then give them with "
            "--calibration patterns.safetensors (calibration=Calibration.load(...) in Python)"
        )
    return calibration.patterns


def released_roots(version: Version, *, unrolled: bool = False) -> Composite:
    """Root learning as released, in closed form: the search hardly moves, and is written out only if `-unrolled`.

    Conserves: no; version 2 does in convolutions.
    Source: Zhang et al. 2024, released code (versions 1 and 2: April 2024; 3: June 2024).
    """
    closed = not unrolled
    entries = (
        Entry(ReleasedConvolution(version, closed, ones=True), operator="convolution", first=True),
        Entry(ReleasedConvolution(version, closed), operator="convolution"),
        Entry(ReleasedDense(version, closed), kind="affine"),
        Entry(SplitByShare("absolute"), kind="sum"),
        *([Entry(ReleasedActivation(closed), kind="activation", residual=False)] if version > 1 else []),
        *_PASS_WITHOUT_BIAS,
    )
    name = f"root-v{version}-unrolled" if unrolled else f"root-v{version}"
    return Composite(name, entries, start="magnitude")


def z_plus_rule(epsilon: float = 1e-9) -> AlphaBeta:
    """z⁺ without a bias."""
    return AlphaBeta(1, 0, epsilon=epsilon)


def _box(bounds: Bounds | None) -> Entry:
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


def _renamed(composite: Composite, name: str) -> Composite:
    return replace(composite, name=name)


_FLAT_FIRST = Entry(Flat(1e-6), kind="affine", first=True)

PRESETS: Mapping[str, Callable[..., Composite]] = {
    "gradient": gradient,
    "gradient*input": gradient_times_input,
    "lrp-0": lrp_0,
    "epsilon": epsilon,
    "gamma": gamma,
    "z+": z_plus,
    "alpha1beta0": partial(alpha_beta, 1, 0),
    "alpha2beta1": partial(alpha_beta, 2, 1),
    "alpha5beta4": partial(alpha_beta, 5, 4),
    "w2": w_squared,
    "flat": flat,
    "zb": z_box,
    "dtd": deep_taylor,
    "excitation-backprop": excitation_backprop,
    "contrastive-lrp": contrastive_lrp,
    "contrastive-excitation-backprop": contrastive_excitation_backprop,
    "grad-cam": grad_cam,
    "smoothgrad": smoothgrad,
    "integrated-gradients": integrated_gradients,
    "guided-backprop": guided_backprop,
    "deconvnet": deconvnet,
    "rectgrad": rectgrad,
    "beta-smooth": beta_smooth,
    "patternnet": pattern_net,
    "patternattribution": pattern_attribution,
    "lrp-cmp-a1b0": partial(lrp_cmp, 1, 0),
    "lrp-cmp-a2b1": partial(lrp_cmp, 2, 1),
    "montavon": montavon,
    "epsilon-plus": partial(epsilon_and, AlphaBeta(1, 0, "split", 1e-6), "epsilon-plus"),
    "epsilon-plus-flat": partial(epsilon_and, AlphaBeta(1, 0, "split", 1e-6), "epsilon-plus-flat", _FLAT_FIRST),
    "epsilon-alpha2-beta1": partial(epsilon_and, AlphaBeta(2, 1, "split", 1e-6), "epsilon-alpha2-beta1"),
    "epsilon-alpha2-beta1-flat": partial(
        epsilon_and, AlphaBeta(2, 1, "split", 1e-6), "epsilon-alpha2-beta1-flat", _FLAT_FIRST
    ),
    "epsilon-gamma-box": epsilon_gamma_box,
    "deeplift-rescale": deeplift_rescale,
    "deeplift-revealcancel": deeplift_revealcancel,
    "deeplift-ablation": partial(deeplift_ablation, "cut", "deeplift-ablation"),
    "deeplift-ablation-text": partial(deeplift_ablation, "cut-by-chain", "deeplift-ablation-text"),
    "root-v1": partial(released_roots, 1),
    "root-v2": partial(released_roots, 2),
    "root-v3": partial(released_roots, 3),
    "root-v1-unrolled": partial(released_roots, 1, unrolled=True),
    "root-v2-unrolled": partial(released_roots, 2, unrolled=True),
    "root-v3-unrolled": partial(released_roots, 3, unrolled=True),
}

RULES: Mapping[str, Callable[..., AnyRule]] = {
    "adjoint": Adjoint,
    "lrp-0": Adjoint,
    "epsilon": Epsilon,
    "gamma": Gamma,
    "z+": z_plus_rule,
    "w2": WSquared,
    "flat": Flat,
    "zb": box_rule,
    "fixed-root": FixedRoot,
    "pass": PassThrough,
    "patternattribution": pattern_rule,
    "guided": Guided,
    "deconvnet": Deconvnet,
    "rectgrad": RectGrad,
    "beta-smooth": BetaSmooth,
    "signal-takes-all": SignalTakesAll,
}
