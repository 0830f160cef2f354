"""Gradients, modified gradients, and averages of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from relcompile.methods.composites import Composite, Entry
from relcompile.methods.rules.adjoint import Adjoint
from relcompile.methods.rules.guided import BetaSmooth, Deconvnet, Guided, RectGrad
from relcompile.methods.rules.parameters import Bound
from relcompile.methods.sampling import GaussianNoise, StraightPath, as_count

# Of every kind.
ADJOINTS: Final[tuple[Entry, ...]] = (Entry(Adjoint()),)


def gradient() -> Composite:
    """The gradient of the target's score with respect to the input."""
    return Composite("gradient", ADJOINTS, start="cotangent", result="multiplier")


def gradient_times_input() -> Composite:
    """The gradient times the input."""
    return Composite("gradient*input", ADJOINTS, start="cotangent")


def guided_backprop() -> Composite:
    """Guided Backprop: gradients that are negative at an activation are dropped."""
    entries = (Entry(Guided(), kind="activation"), *ADJOINTS)
    return Composite("guided-backprop", entries, start="cotangent", result="multiplier")


def deconvnet() -> Composite:
    """Deconvnet: as Guided Backprop, without the mask of the forward pass."""
    entries = (Entry(Deconvnet(), kind="activation"), *ADJOINTS)
    return Composite("deconvnet", entries, start="cotangent", result="multiplier")


def rectgrad(q: float = 98.0) -> Composite:
    """RectGrad: only gradients of the most important units of every layer pass."""
    entries = (Entry(RectGrad(q), kind="activation"), *ADJOINTS)
    return Composite("rectgrad", entries, start="cotangent", result="multiplier")


def beta_smooth(beta: float = 10.0) -> Composite:
    """Gradients with every ReLU smoothed."""
    entries = (Entry(BetaSmooth(beta), operator="relu"), *ADJOINTS)
    return Composite("beta-smooth", entries, start="cotangent", result="multiplier")


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


def grad_cam() -> Composite:
    """Grad-CAM: the last feature map (or that of `--at`), weighted by its mean gradients, at the input's size.

    Equation: R = upsample(max(0, Σ_c w_c A_c)), w_c = spatial mean of ∂y/∂A_c; bilinear, corners not aligned
    Conserves: no.
    Source: Selvaraju et al. 2017, equations 1 and 2.
    """
    return Composite("grad-cam", ADJOINTS, start="cotangent", result="activation-map")
