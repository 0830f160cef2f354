"""One row per rule: its name, and the oracle's rule of every kind of step."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Literal

import torch

from passes.relevance.protocol.stabilise import Relative
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets import alpha_beta, epsilon, gamma, lrp_0, z_plus
from relcompile.methods.rules.input_layer import WSquared
from relcompile.methods.rules.residual import OneBranch, SplitByShare
from tests.oracles import affine, local, nets
from tests.oracles.network import Add, Flatten, Step

EXACT: dict[str, Any] = {
    "average": partial(affine.lrp_0, bias="none"),
    "max_pool": local.winner_takes_all,
    "add": partial(local.proportional, eps=0.0),
    "activation": local.pass_through,
}
GRADIENT: dict[str, Any] = {
    "affine": affine.gradient,
    "average": affine.gradient,
    "batch_norm": affine.gradient,
    "max_pool": local.winner_takes_all,
    "add": local.copied,
    "activation": local.by_gradient,
}
BY_WEIGHTS: dict[str, Any] = {
    **EXACT,
    "average": partial(affine.w_squared, bias="none", eps=0.0),
    "add": local.uniform,
}
PLAIN_NETS = ("mlp", "cnn", "residual", "branches", "shared")
BOUNDS = (-5.0, 4.0)


GRADIENT_CASES: dict[str, Any] = {
    "gradient": GRADIENT,
    "gradient*input": GRADIENT,
    "guided-backprop": {**GRADIENT, "activation": local.guided},
    "deconvnet": {**GRADIENT, "activation": local.deconvolution},
    # Not the median: half the units of a ReLU layer are 0, and a threshold of 0 +- rounding decides nothing.
    "rectgrad=90": {**GRADIENT, "activation": partial(local.rectified, q=90.0)},
}


@dataclass(frozen=True)
class RuleCase:
    """A composite and what the oracle computes for it.

    Attributes:
        rule: name or composite.
        affine: the oracle's rule of affine steps; other steps as in `others`.
        nets: the networks it is compared on.
        conserves: on networks without biases the relevance sums to the start. (With beta > 0 only where every unit has
            contributions of both signs, which small ReLU networks do not grant: see `test_alpha_beta_conserves`.)
        start: relevance at the target.
    """

    rule: str | Composite
    affine: Any
    others: dict[str, Any] = field(default_factory=lambda: EXACT)
    nets: tuple[str, ...] = PLAIN_NETS
    conserves: bool = True
    start: Literal["logit", "one"] = "logit"

    @property
    def rules(self) -> dict[str, Any]:
        """The oracle's rules by kind of step, or by name of a step."""
        by_step = self.affine if isinstance(self.affine, dict) else {"affine": self.affine}
        return {**self.others, **by_step}


ALPHA_BETA = partial(affine.alpha_beta, eps=1e-9, bias="none")
Z_PLUS = partial(affine.z_plus, bias="none", eps=1e-9)
EPSILON = partial(affine.epsilon, eps=1e-6, bias="full")
W_SQUARED = partial(affine.w_squared, bias="none", eps=1e-9)
Z_BOX = partial(affine.z_box, low=BOUNDS[0], high=BOUNDS[1], eps=1e-6)
FIRST_OF_CNN, DENSE_OF_CNN = "conv1", "fc"


def split(rule: Any) -> Composite:
    """LRP-0 with another residual split."""
    return Composite("split", (Entry(rule, kind="sum"), *lrp_0().entries))


@cache
def network(name: str, *, bias: bool) -> nets.Net:
    """A network of the oracle's collection, or the one that is only needed here."""
    return one_block(nets.Weights(1, bias)) if name == "one_block" else nets.build(name, seed=1, bias=bias)


def one_block(w: nets.Weights) -> nets.Net:
    """One residual connection around a convolution; the identity is its second operand."""
    return nets.Net(
        (
            Step("stem", w.conv(2, 4, 3, padding=1), ("input",)),
            Step("stem_relu", nets.relu(), ("stem",)),
            Step("main", w.conv(4, 4, 3, padding=1), ("stem_relu",)),
            Step("sum", Add(), ("main", "stem_relu")),
            Step("flat", Flatten(), ("sum",)),
            Step("fc", w.linear(64, 3), ("flat",)),
        ),
        (2, 4, 4),
    )


CASES: dict[str, RuleCase] = {
    "lrp-0": RuleCase("lrp-0", partial(affine.lrp_0, bias="full")),
    "epsilon": RuleCase("epsilon", EPSILON),
    "epsilon=0.25": RuleCase("epsilon=0.25", partial(affine.epsilon, eps=0.25, bias="full"), conserves=False),
    "relative-epsilon": RuleCase(
        "relative-epsilon", partial(affine.epsilon, eps=affine.of_rms(0.25), bias="full"), conserves=False
    ),
    "relative z+": RuleCase(
        z_plus(Relative(0.1)), partial(affine.z_plus, bias="none", eps=affine.of_rms(0.1)), conserves=False
    ),
    "relative alpha2beta1": RuleCase(
        alpha_beta(2, 1, epsilon=Relative(0.1)),
        partial(affine.alpha_beta, alpha=2, beta=1, bias="none", eps=affine.of_rms(0.1)),
        conserves=False,
    ),
    "gamma": RuleCase("gamma", partial(affine.gamma_generalised, g=0.25, bias="scaled", eps=1e-6)),
    "gamma=2": RuleCase(gamma(2.0), partial(affine.gamma_generalised, g=2.0, bias="scaled", eps=1e-6)),
    "z+": RuleCase("z+", Z_PLUS),
    "z+ split bias": RuleCase(z_plus(1e-6, "split"), partial(affine.z_plus, bias="positive", eps=1e-6)),
    "z+ full bias": RuleCase(z_plus(1e-6, "full"), partial(affine.z_plus, bias="full", eps=1e-6)),
    "alpha1beta0": RuleCase("alpha1beta0", partial(ALPHA_BETA, alpha=1, beta=0)),
    "alpha2beta1": RuleCase("alpha2beta1", partial(ALPHA_BETA, alpha=2, beta=1), conserves=False),
    "alpha5beta4": RuleCase("alpha5beta4", partial(ALPHA_BETA, alpha=5, beta=4), conserves=False),
    "alpha3beta2 split bias": RuleCase(
        alpha_beta(3, 2, "split", 1e-6),
        partial(affine.alpha_beta, alpha=3, beta=2, bias="split", eps=1e-6),
        conserves=False,
    ),
    "alpha2beta1 full bias": RuleCase(
        alpha_beta(2, 1, "full", 1e-6),
        partial(affine.alpha_beta, alpha=2, beta=1, bias="full", eps=1e-6),
        conserves=False,
    ),
    # Not "shared": its sum of three is two sums of two, which do not share in thirds.
    "w2": RuleCase("w2", W_SQUARED, BY_WEIGHTS, nets=("mlp", "cnn", "residual", "branches")),
    "w2 squared bias": RuleCase(
        Composite("w2", (Entry(WSquared(1e-6, "squared"), kind="affine"), *lrp_0().entries)),
        partial(affine.w_squared, bias="squared", eps=1e-6),
        nets=("mlp",),
    ),
    "flat": RuleCase("flat", partial(affine.flat, support=None, eps=1e-9), BY_WEIGHTS, nets=("mlp",)),
    "zb": RuleCase("zb", {"affine": Z_PLUS, FIRST_OF_CNN: Z_BOX}, nets=("cnn",)),
    "dtd": RuleCase("dtd", {"affine": Z_PLUS, FIRST_OF_CNN: Z_BOX}, nets=("cnn",)),
    "excitation-backprop": RuleCase("excitation-backprop", Z_PLUS, start="one"),
    "lrp-cmp-a1b0": RuleCase(
        "lrp-cmp-a1b0",
        {"affine": Z_PLUS, DENSE_OF_CNN: partial(affine.epsilon, eps=1e-10, bias="full")},
        nets=("cnn", "residual"),
    ),
    "lrp-cmp-a2b1": RuleCase(
        "lrp-cmp-a2b1",
        {"affine": partial(ALPHA_BETA, alpha=2, beta=1), DENSE_OF_CNN: partial(affine.epsilon, eps=1e-10, bias="full")},
        nets=("cnn", "residual"),
        conserves=False,
    ),
    "montavon": RuleCase(
        "montavon",
        {
            "affine": partial(affine.lrp_0, bias="full"),
            "conv2": partial(affine.epsilon, eps=affine.of_rms(0.25), bias="full"),
            FIRST_OF_CNN: Z_BOX,
        },
        nets=("cnn",),
        conserves=False,
    ),
    "epsilon-plus": RuleCase(
        "epsilon-plus",
        {"affine": partial(affine.z_plus, bias="positive", eps=1e-6), DENSE_OF_CNN: EPSILON},
        nets=("cnn", "residual"),
    ),
    "w2 first": RuleCase(
        epsilon().with_entries(Entry(WSquared(), kind="affine", first=True)),
        {"affine": EPSILON, FIRST_OF_CNN: W_SQUARED},
        nets=("cnn",),
    ),
    "identity only": RuleCase(
        split(OneBranch("identity")),
        partial(affine.lrp_0, bias="full"),
        {**EXACT, "add": lambda summands, R: [torch.zeros_like(R), R]},
        nets=("one_block",),
    ),
    "main branch only": RuleCase(
        split(OneBranch("main")),
        partial(affine.lrp_0, bias="full"),
        {**EXACT, "add": lambda summands, R: [R, torch.zeros_like(R)]},
        nets=("one_block",),
    ),
    "uniform split": RuleCase(
        split(SplitByShare("uniform")),
        partial(affine.lrp_0, bias="full"),
        {**EXACT, "add": local.uniform},
        nets=("residual",),
    ),
    "absolute split": RuleCase(
        split(SplitByShare("absolute")),
        partial(affine.lrp_0, bias="full"),
        {**EXACT, "add": partial(local.absolute, eps=1e-9)},
        nets=("residual",),
    ),
}
