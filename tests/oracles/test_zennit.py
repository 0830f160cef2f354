"""The affine and network oracles against zennit, whose conventions are those of peers.md 4.2.

Its stabiliser is z + eps sign(z), sign(0) = +1. Its bias is split by sign (b+ over z+, b- over z-), squared
in w^2, scaled in gamma, gone with zero_params="bias"; gamma takes the sign of the biased output even then.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
import zennit.rules
from torch import Tensor, nn

from tests.compare import FLOAT64, assert_close
from tests.oracles import affine, local, nets, network


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (6,)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 5, 5)),
    "grouped conv": (lambda: nn.Conv2d(2, 4, 2, dilation=2, groups=2), (2, 5, 5)),
    "no bias": (lambda: nn.Conv2d(2, 3, 3, padding=1, bias=False), (2, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2), (2, 3, 3)),
}
EPS = 0.1  # large enough that a stabiliser of another form would show
ZENNIT = {
    "epsilon": (zennit.rules.Epsilon(EPS), partial(affine.epsilon, eps=EPS, bias="full")),
    "epsilon, no bias": (
        zennit.rules.Epsilon(EPS, zero_params="bias"),
        partial(affine.epsilon, eps=EPS, bias="none"),
    ),
    "z+": (zennit.rules.ZPlus(EPS), partial(affine.z_plus, eps=EPS, bias="positive")),
    "z+, no bias": (
        zennit.rules.ZPlus(EPS, zero_params="bias"),
        partial(affine.z_plus, eps=EPS, bias="none"),
    ),
    "a2b1": (
        zennit.rules.AlphaBeta(2, 1, EPS),
        partial(affine.alpha_beta, alpha=2.0, beta=1.0, eps=EPS, bias="split"),
    ),
    "a2b1, no bias": (
        zennit.rules.AlphaBeta(2, 1, EPS, zero_params="bias"),
        partial(affine.alpha_beta, alpha=2.0, beta=1.0, eps=EPS, bias="none"),
    ),
    "gamma": (zennit.rules.Gamma(0.5, EPS), partial(affine.gamma_generalised, g=0.5, eps=EPS, bias="scaled")),
    "gamma, no bias": (
        zennit.rules.Gamma(0.5, EPS, zero_params="bias"),
        partial(affine.gamma_generalised, g=0.5, eps=EPS, bias="none"),
    ),
    "w2": (zennit.rules.WSquare(EPS), partial(affine.w_squared, eps=EPS, bias="squared")),
    "w2, no bias": (
        zennit.rules.WSquare(EPS, zero_params="bias"),
        partial(affine.w_squared, eps=EPS, bias="none"),
    ),
    "flat": (zennit.rules.Flat(EPS), partial(affine.flat, support=None, eps=EPS)),
    "zB": (zennit.rules.ZBox(-3.0, 4.0, EPS), partial(affine.z_box, low=-3.0, high=4.0, eps=EPS)),
}


@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize(("hook", "rule"), ZENNIT.values(), ids=ZENNIT)
def test_zennit(hook, rule, make, shape: tuple[int, ...]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(30)
        layer = make().double()
    W, b = affine.matrix_of(layer, shape)
    x = randn(3, *shape, seed=31).requires_grad_()
    handles = hook.copy().register(layer)
    y = layer(x)
    R = randn(*y.shape, seed=32)
    (expected,) = torch.autograd.grad(y, x, R)
    handles.remove()
    assert_close(rule(x.detach().flatten(1), W, b, R.flatten(1)), expected.flatten(1), FLOAT64)


# Whole networks: zennit's hooks on the modules that `as_module` builds from the same description. No sums:
# zennit splits relevance only at a Sum module of its own.

Z = zennit.rules
PASS = {"activation": (Z.Pass(), local.pass_through)}
WINNER = {"max_pool": (None, local.winner_takes_all)}
NORM = {"average": (Z.Norm(EPS), partial(affine.epsilon, eps=EPS, bias="none"))}
LRP = {**PASS, **WINNER, **NORM}
GRADIENT = {"affine": (None, affine.gradient), "average": (None, affine.gradient), **WINNER}
COMPOSITES = {
    "epsilon": {**LRP, "affine": ZENNIT["epsilon"]},
    "z+": {**LRP, "affine": ZENNIT["z+"]},
    "a2b1, no bias": {**LRP, "affine": ZENNIT["a2b1, no bias"]},
    "gamma": {**LRP, "affine": ZENNIT["gamma"]},
    "w2 (relevance at zeros)": {**LRP, "affine": ZENNIT["w2"]},
    "flat (relevance at zeros)": {**LRP, "affine": ZENNIT["flat"]},
    "zB, then gamma, then epsilon": {
        **LRP,
        "affine": ZENNIT["gamma"],
        "conv1": ZENNIT["zB"],
        "b1": ZENNIT["zB"],
        "b2": ZENNIT["zB"],
        "fc": ZENNIT["epsilon"],
    },
    "guided": {**GRADIENT, "activation": (Z.ReLUGuidedBackprop(), local.guided)},
    "deconvolution": {**GRADIENT, "activation": (Z.ReLUDeconvNet(), local.deconvolution)},
}


@pytest.mark.parametrize("name", ["cnn", "branches"])
@pytest.mark.parametrize("composite", COMPOSITES.values(), ids=COMPOSITES)
def test_whole_network(name: str, composite: dict) -> None:
    net = nets.build(name, seed=3, bias=True)
    x, target = net.batch(2, seed=41), torch.tensor([0, 2])
    rules = {key: rule for key, (_, rule) in composite.items()}
    oracle = network.explain(net.steps, x, target, rules, start="logit")
    module = network.as_module(net.steps)
    for step in net.steps:
        hook = composite.get(step.name, composite.get(step.op.kind, (None, None)))[0]
        if hook is not None:
            hook.copy().register(module.get_submodule(step.name))
    leaf = x.clone().requires_grad_()
    output = module(leaf)
    onehot = nn.functional.one_hot(target, 3)
    (expected,) = torch.autograd.grad(output, leaf, onehot * output.detach())
    assert_close(oracle["input"], expected, FLOAT64)
