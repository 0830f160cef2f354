"""Gradients, modified gradients, and averages of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from relcompile.methods.composites import Composite, Entry
from relcompile.methods.results import AsActivationMap, AsMultiplier
from relcompile.methods.rules.adjoint import Adjoint
from relcompile.methods.rules.guided import BetaSmooth, Deconvnet, Guided, RectGrad
from relcompile.methods.rules.parameters import Bound
from relcompile.methods.sampling import GaussianNoise, StraightPath, as_count
from relcompile.methods.starts import Cotangent

# Of every kind.
ADJOINTS: Final[tuple[Entry, ...]] = (Entry(Adjoint()),)


def gradient() -> Composite:
    """The gradient of the target's score with respect to the input.

    Use: as the baseline, and for what moves the score at this very input; noisy, and no account of the score.
    """
    return Composite("gradient", ADJOINTS, start=Cotangent(), result=AsMultiplier())


def gradient_times_input() -> Composite:
    """The gradient times the input.

    Use: as the baseline that sums to the score of a piecewise linear network without biases; equals LRP-0 there.
    """
    return Composite("gradient*input", ADJOINTS, start=Cotangent())


def guided_backprop() -> Composite:
    """Guided Backprop: gradients that are negative at an activation are dropped.

    Use: for sharp pictures of what excites units; hardly depends on the class, so not as evidence for one.
    """
    entries = (Entry(Guided(), kind="activation"), *ADJOINTS)
    return Composite("guided-backprop", entries, start=Cotangent(), result=AsMultiplier())


def deconvnet() -> Composite:
    """Deconvnet: as Guided Backprop, without the mask of the forward pass.

    Use: for comparison with the literature; Guided Backprop is the better picture.
    """
    entries = (Entry(Deconvnet(), kind="activation"), *ADJOINTS)
    return Composite("deconvnet", entries, start=Cotangent(), result=AsMultiplier())


def rectgrad(q: float = 98.0) -> Composite:
    """RectGrad: only gradients of the most important units of every layer pass.

    Use: for pictures with little noise; q says how little.
    """
    entries = (Entry(RectGrad(q), kind="activation"), *ADJOINTS)
    return Composite("rectgrad", entries, start=Cotangent(), result=AsMultiplier())


def beta_smooth(beta: float = 10.0) -> Composite:
    """Gradients with every ReLU smoothed.

    Use: where a gradient should not jump with the smallest change of the input.
    """
    entries = (Entry(BetaSmooth(beta), operator="relu"), *ADJOINTS)
    return Composite("beta-smooth", entries, start=Cotangent(), result=AsMultiplier())


def smoothgrad(count: float = 25, level: float = 0.15) -> Composite:
    """SmoothGrad: the mean gradient over noisy copies of the input.

    Equation: R(x) = 1/n Σ_i ∂y/∂x (x + σ ξ_i), ξ_i ~ N(0, 1), σ = level (max x - min x)
    Conserves: no.
    Use: for a gradient with less noise, at `count` times its cost.
    Source: Smilkov et al. 2017.
    """
    return replace(gradient(), name="smoothgrad", sampling=GaussianNoise(as_count(count), level))


def integrated_gradients(count: float = 32, baseline: Bound = 0.0) -> Composite:
    """Integrated Gradients: the mean gradient on the way from a baseline, times the way.

    Equation: R(x) = (x - x₀) ⊙ 1/n Σ_i ∂y/∂x (x₀ + (i - ½)/n (x - x₀)) (the midpoint rule)
    Conserves: Σ R -> f(x) - f(x₀) as n grows.
    Use: where the map has to sum to the difference from a baseline and many passes are affordable;
        `deeplift-rescale` comes close in one.
    Source: Sundararajan et al. 2017, equation 3.
    """
    return replace(gradient(), name="integrated-gradients", sampling=StraightPath(as_count(count), baseline))


def grad_cam() -> Composite:
    """Grad-CAM: the last feature map (or that of `--at`), weighted by its mean gradients, at the input's size.

    Equation: R = upsample(max(0, Σ_c w_c A_c)), w_c = spatial mean of ∂y/∂A_c; bilinear, corners not aligned
    Conserves: no.
    Use: to see in which region a convolutional network looks; coarse, cheap, and on any architecture.
    Source: Selvaraju et al. 2017, equations 1 and 2.
    """
    return Composite("grad-cam", ADJOINTS, start=Cotangent(), result=AsActivationMap())
