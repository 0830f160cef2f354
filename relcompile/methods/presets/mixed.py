"""Composites of the literature and of other libraries: different rules for different layers."""

from __future__ import annotations

from dataclasses import replace

from passes.relevance.protocol.rule import AnyRule
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets.lrp import (
    PASS,
    alpha_beta,
    box,
    relative_epsilon_rule,
)
from relcompile.methods.rules.adjoint import Adjoint
from relcompile.methods.rules.affine import Epsilon, Gamma
from relcompile.methods.rules.parameters import Bounds


def lrp_cmp(alpha: float, beta: float) -> Composite:
    """LRP-CMP: ε on dense layers, αβ on convolutions.

    Equation: R_j = Σ_k x_j w_kj / ⟨z_k⟩ε R_k (dense, ε = 1e-10); LRP-αβ (convolutions)
    Conserves: as its parts.
    Use: as the composite that the literature recommends for VGG-like networks.
    Source: Sixt et al. 2020, section 5; Kohlbrenner et al. 2020.
    """
    dense = Entry(Epsilon(1e-10), operator="linear")
    return replace(alpha_beta(alpha, beta).with_entries(dense), name=f"lrp-cmp-a{alpha:g}b{beta:g}")


def montavon(bounds: Bounds | None = None) -> Composite:
    """LRP-0 in the upper third, LRP-ε in the middle, LRP-γ in the lower third, zᴮ at the input.

    Equation: R_j = Σ_k x_j ρ(w_kj) / ⟨Σ_i x_i ρ(w_ki)⟩ε R_k, ρ(w) = w + γ w⁺ below, w above; in the middle ε is 0.25
        times the root mean square of z
    Conserves: as its parts.
    Use: as the textbook's composite: a rule for each depth.
    Source: Montavon et al. 2019, section 10.3, and their tutorial.
    """
    entries = (
        box(bounds),
        Entry(Gamma(0.25), kind="affine", depth=(0, 1 / 3)),
        Entry(relative_epsilon_rule(0.25), kind="affine", depth=(1 / 3, 2 / 3)),
        Entry(Adjoint(), kind="affine"),
    )
    return Composite("montavon", (*entries, *PASS))


def epsilon_and(convolutions: AnyRule, name: str, *first: Entry) -> Composite:
    """ε on dense layers, another rule on convolutions, perhaps a third on the first layer: zennit's presets.

    Conserves: as its parts.
    Use: for the numbers of zennit's composite of that name.
    Source: zennit's composites of these names; Kohlbrenner et al. 2020.
    """
    entries = (*first, Entry(convolutions, operator="convolution"), Entry(Epsilon(), kind="affine"), *PASS)
    return Composite(name, entries)


def epsilon_gamma_box(bounds: Bounds | None = None) -> Composite:
    """ε on dense layers, γ on convolutions, zᴮ on the first layer.

    Conserves: as its parts.
    Use: for the numbers of zennit's composite of that name; give the bounds of the input.
    Source: zennit's `EpsilonGammaBox`.
    """
    return epsilon_and(Gamma(), "epsilon-gamma-box", box(bounds))
