"""The named rules and composites, as two tables: what `--rule` and `--layer` accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from passes.relevance.rule import AnyRule
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets.deeplift import (
    deeplift,
    deeplift_ablation,
    deeplift_genomics,
    deeplift_rescale,
    deeplift_revealcancel,
)
from relcompile.methods.presets.gradients import (
    beta_smooth,
    deconvnet,
    grad_cam,
    gradient,
    gradient_times_input,
    guided_backprop,
    integrated_gradients,
    rectgrad,
    smoothgrad,
)
from relcompile.methods.presets.learned import (
    learned_root,
    pattern_attribution,
    pattern_net,
    pattern_rule,
    released_roots,
    root_rule,
)
from relcompile.methods.presets.lrp import (
    Bounds,
    alpha_beta,
    box_rule,
    contrastive_excitation_backprop,
    contrastive_lrp,
    deep_taylor,
    epsilon,
    excitation_backprop,
    flat,
    gamma,
    lrp_0,
    relative_epsilon,
    relative_epsilon_rule,
    w_squared,
    z_box,
    z_plus,
    z_plus_rule,
)
from relcompile.methods.presets.mixed import epsilon_and, epsilon_gamma_box, lrp_cmp, montavon
from relcompile.methods.presets.transformers import attn_lrp, cp_lrp, rel_p
from relcompile.methods.rules.adjoint import Adjoint
from relcompile.methods.rules.affine import AlphaBeta, Epsilon, Gamma
from relcompile.methods.rules.between_roots import BetweenRoots, ContributionsApart
from relcompile.methods.rules.fixed_root import FixedRoot
from relcompile.methods.rules.guided import BetaSmooth, Deconvnet, Guided, RectGrad
from relcompile.methods.rules.input_layer import Flat, WSquared
from relcompile.methods.rules.pointwise import PassThrough, SignalTakesAll
from relcompile.methods.rules.products import Half, Hold

__all__ = [
    "PRESETS",
    "RULES",
    "Bounds",
    "alpha_beta",
    "attn_lrp",
    "contrastive_excitation_backprop",
    "contrastive_lrp",
    "cp_lrp",
    "deep_taylor",
    "deeplift",
    "deeplift_rescale",
    "deeplift_revealcancel",
    "epsilon",
    "epsilon_and",
    "epsilon_gamma_box",
    "excitation_backprop",
    "flat",
    "gamma",
    "grad_cam",
    "gradient",
    "gradient_times_input",
    "integrated_gradients",
    "lrp_0",
    "montavon",
    "pattern_attribution",
    "pattern_net",
    "rel_p",
    "relative_epsilon",
    "smoothgrad",
    "w_squared",
    "z_box",
    "z_plus",
]

_FLAT_FIRST = Entry(Flat(1e-6), kind="affine", first=True)

PRESETS: Mapping[str, Callable[..., Composite]] = {
    "gradient": gradient,
    "gradient*input": gradient_times_input,
    "lrp-0": lrp_0,
    "epsilon": epsilon,
    "relative-epsilon": relative_epsilon,
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
    "attnlrp": attn_lrp,
    "cp-lrp": cp_lrp,
    "relp": rel_p,
    "deeplift-rescale": deeplift_rescale,
    "deeplift-revealcancel": deeplift_revealcancel,
    "deeplift-genomics": deeplift_genomics,
    "deeplift-ablation": partial(deeplift_ablation, "cut", "deeplift-ablation"),
    "deeplift-ablation-text": partial(deeplift_ablation, "cut-by-chain", "deeplift-ablation-text"),
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
    "relative-epsilon": relative_epsilon_rule,
    "gamma": Gamma,
    "z+": z_plus_rule,
    "w2": WSquared,
    "flat": Flat,
    "zb": box_rule,
    "root": root_rule,
    "between-roots": BetweenRoots,
    "contributions-apart": ContributionsApart,
    "fixed-root": FixedRoot,
    "pass": PassThrough,
    "patternattribution": pattern_rule,
    "guided": Guided,
    "deconvnet": Deconvnet,
    "rectgrad": RectGrad,
    "beta-smooth": BetaSmooth,
    "signal-takes-all": SignalTakesAll,
    "half": Half,
    "hold": Hold,
}
