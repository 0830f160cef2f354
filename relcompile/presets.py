"""The named rules and composites, as two tables: what `--rule` and `--layer` accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from passes.messages import AnyRule
from relcompile.composites import Composite, Entry
from relcompile.errors import CompositeError
from relcompile.rules.adjoint import Adjoint
from relcompile.rules.affine import AlphaBeta, Epsilon, Gamma
from relcompile.rules.fixed_root import FixedRoot
from relcompile.rules.guided import BetaSmooth, Deconvnet, Guided, RectGrad
from relcompile.rules.input_layer import Bound, Flat, WSquared, ZBox
from relcompile.rules.pointwise import PassThrough, SignalTakesAll
from relcompile.rules.released_roots import ReleasedActivation, ReleasedConvolution, ReleasedDense, Version
from relcompile.rules.residual import SplitByShare
from relcompile.rules.root import LearnedRoot

Bounds: TypeAlias = tuple[Bound, Bound]

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


def learned_root(steps: float = 1) -> Composite:
    """A root learned in every affine layer, in so many steps, and relevance along the input and its signal."""
    return Composite("root", (Entry(root_rule(steps), kind="affine"), *_PASS))


def root_rule(steps: float = 1) -> LearnedRoot:
    """The rule of the preset `root`.

    Raises:
        CompositeError: `steps` is not a whole number of at least 0.
    """
    if not float(steps).is_integer():
        raise CompositeError(f"root={steps:g}: the number of steps must be whole")
    return LearnedRoot(int(steps))


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
    return Composite(name, composite.entries, composite.start, composite.result)


_FLAT_FIRST = Entry(Flat(), kind="affine", first=True)

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
    "guided-backprop": guided_backprop,
    "deconvnet": deconvnet,
    "rectgrad": rectgrad,
    "beta-smooth": beta_smooth,
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
    "root": learned_root,
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
    "root": root_rule,
    "fixed-root": FixedRoot,
    "pass": PassThrough,
    "guided": Guided,
    "deconvnet": Deconvnet,
    "rectgrad": RectGrad,
    "beta-smooth": BetaSmooth,
    "signal-takes-all": SignalTakesAll,
}
