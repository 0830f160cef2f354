"""The named rules and composites, as two tables: what `--rule` and `--layer` accept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final, TypeVar

from passes.relevance.protocol.rule import AnyRule
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.preset import Preset
from relcompile.methods.presets.deeplift import (
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
from relcompile.methods.presets.transformers import attn_lrp, cp_lrp, lstm, rel_p
from relcompile.methods.rules.adjoint import Adjoint
from relcompile.methods.rules.affine import AlphaBeta, Epsilon, Gamma
from relcompile.methods.rules.guided import BetaSmooth, Deconvnet, Guided, RectGrad
from relcompile.methods.rules.input_layer import Flat, WSquared
from relcompile.methods.rules.pointwise import PassThrough, SignalTakesAll
from relcompile.methods.rules.products import Half, Hold
from relcompile.methods.rules.roots.between_roots import BetweenRoots, ContributionsApart
from relcompile.methods.rules.roots.fixed_root import FixedRoot

Made = TypeVar("Made")
_FLAT_FIRST = Entry(Flat(1e-6), kind="affine", first=True)


def _table(*rows: Preset[Made]) -> Mapping[str, Preset[Made]]:
    return {row.name: row for row in rows}


PRESETS: Final[Mapping[str, Preset[Composite]]] = _table(
    Preset("gradient", gradient),
    Preset("gradient*input", gradient_times_input),
    Preset("lrp-0", lrp_0),
    Preset("epsilon", epsilon),
    Preset("relative-epsilon", relative_epsilon),
    Preset("gamma", gamma),
    Preset("z+", z_plus),
    Preset("alpha1beta0", partial(alpha_beta, 1, 0)),
    Preset("alpha2beta1", partial(alpha_beta, 2, 1)),
    Preset("alpha5beta4", partial(alpha_beta, 5, 4)),
    Preset("w2", w_squared),
    Preset("flat", flat),
    Preset("zb", z_box, needs=("bounds",)),
    Preset("dtd", deep_taylor, needs=("bounds",)),
    Preset("excitation-backprop", excitation_backprop),
    Preset("contrastive-lrp", contrastive_lrp),
    Preset("contrastive-excitation-backprop", contrastive_excitation_backprop),
    Preset("grad-cam", grad_cam),
    Preset("smoothgrad", smoothgrad),
    Preset("integrated-gradients", integrated_gradients),
    Preset("guided-backprop", guided_backprop),
    Preset("deconvnet", deconvnet),
    Preset("rectgrad", rectgrad),
    Preset("beta-smooth", beta_smooth),
    Preset("patternnet", pattern_net, needs=("calibration",)),
    Preset("patternattribution", pattern_attribution, needs=("calibration",)),
    Preset("lrp-cmp-a1b0", partial(lrp_cmp, 1, 0)),
    Preset("lrp-cmp-a2b1", partial(lrp_cmp, 2, 1)),
    Preset("montavon", montavon, needs=("bounds",)),
    Preset("epsilon-plus", partial(epsilon_and, AlphaBeta(1, 0, "split", 1e-6), "epsilon-plus")),
    Preset("epsilon-plus-flat", partial(epsilon_and, AlphaBeta(1, 0, "split", 1e-6), "epsilon-plus-flat", _FLAT_FIRST)),
    Preset("epsilon-alpha2-beta1", partial(epsilon_and, AlphaBeta(2, 1, "split", 1e-6), "epsilon-alpha2-beta1")),
    Preset(
        "epsilon-alpha2-beta1-flat",
        partial(epsilon_and, AlphaBeta(2, 1, "split", 1e-6), "epsilon-alpha2-beta1-flat", _FLAT_FIRST),
    ),
    Preset("epsilon-gamma-box", epsilon_gamma_box, needs=("bounds",)),
    Preset("attnlrp", attn_lrp),
    Preset("cp-lrp", cp_lrp),
    Preset("relp", rel_p),
    Preset("lstm", lstm),
    Preset("deeplift-rescale", deeplift_rescale),
    Preset("deeplift-revealcancel", deeplift_revealcancel),
    Preset("deeplift-genomics", deeplift_genomics),
    Preset("deeplift-ablation", partial(deeplift_ablation, "cut", "deeplift-ablation")),
    Preset("deeplift-ablation-text", partial(deeplift_ablation, "cut-by-chain", "deeplift-ablation-text")),
    Preset("root", learned_root),
    Preset("root-v1", partial(released_roots, 1)),
    Preset("root-v2", partial(released_roots, 2)),
    Preset("root-v3", partial(released_roots, 3)),
    Preset("root-v1-unrolled", partial(released_roots, 1, unrolled=True)),
    Preset("root-v2-unrolled", partial(released_roots, 2, unrolled=True)),
    Preset("root-v3-unrolled", partial(released_roots, 3, unrolled=True)),
)

RULES: Final[Mapping[str, Preset[AnyRule]]] = _table(
    Preset("adjoint", Adjoint),
    Preset("lrp-0", Adjoint),
    Preset("epsilon", Epsilon),
    Preset("relative-epsilon", relative_epsilon_rule),
    Preset("gamma", Gamma),
    Preset("z+", z_plus_rule),
    Preset("w2", WSquared),
    Preset("flat", Flat),
    Preset("zb", box_rule, needs=("bounds",)),
    Preset("root", root_rule),
    Preset("between-roots", BetweenRoots),
    Preset("contributions-apart", ContributionsApart),
    Preset("fixed-root", FixedRoot),
    Preset("pass", PassThrough),
    Preset("patternattribution", pattern_rule, needs=("calibration",)),
    Preset("guided", Guided),
    Preset("deconvnet", Deconvnet),
    Preset("rectgrad", RectGrad),
    Preset("beta-smooth", BetaSmooth),
    Preset("signal-takes-all", SignalTakesAll),
    Preset("half", Half),
    Preset("hold", Hold),
)
