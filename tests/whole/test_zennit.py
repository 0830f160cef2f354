"""Whole networks against zennit, which works with hooks on modules: every rule and every composite that it has.

zennit needs its canonizers to see batch norms and residual sums. Conventions (docs/conventions.md): our z+ leaves
the bias out (`zero_params="bias"`), both stabilise with z + 1e-6 sign(z); sums and average pools are shared in
proportion (`Norm`), ours without a stabiliser, so zennit's is made small there; activations pass relevance on.
Excitation Backprop keeps the bias in zennit and has none in relcompile.
zennit's merged batch norms keep their eps and so still divide by sqrt(1 + eps), 5e-6 a layer: here eps is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg
from zennit import composites, rules, types
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite
from zennit.core import Stabilizer
from zennit.layer import Sum
from zennit.torchvision import ResNetCanonizer

import relcompile
from passes.relevance.protocol.stabilise import Relative
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets import PRESETS, alpha_beta, epsilon, excitation_backprop, gamma, z_plus
from relcompile.methods.presets.lrp import PASS
from relcompile.methods.rules.input_layer import Flat, WSquared, ZBox
from tests.compare import FLOAT64, assert_close, assert_conserved, cosine

pytestmark = pytest.mark.sampled(5)

EPSILON = 1e-6
NETWORKS: dict[str, tuple[int, Callable[[], Any] | None]] = {
    "vgg16": (64, None),
    "vgg16_bn": (64, SequentialMergeBatchNorm),
    "resnet18": (64, ResNetCanonizer),
    "resnet50": (64, ResNetCanonizer),
}
RULES: dict[str, tuple[Composite, Any]] = {
    "z+": (z_plus(EPSILON), rules.ZPlus(stabilizer=EPSILON, zero_params="bias")),
    "z+ with bias": (z_plus(EPSILON, bias="split"), rules.ZPlus(stabilizer=EPSILON)),
    "epsilon": (epsilon(EPSILON), rules.Epsilon(epsilon=EPSILON)),
}
# Same mathematics but for zennit's 1e-18 at sums and averages; in float32 rounding, divided by 1e-6 stabilisers
# (zennit in float32 is as far from zennit in float64; the forward pass decides: test_precision.py).
DOUBLE = 1e-8
# zennit's presets stabilise sums and average pools with 1e-6, and no option of theirs changes that alone.
PRESET = 1e-4
LOW, HIGH = -5.0, 5.0
SINGLE = {"z+": (1e-3, 0.999999), "z+ with bias": (1e-3, 0.999999), "epsilon": (5e-3, 0.99999)}


def stabilizer(level: float) -> Any:
    """zennit's, in units of the layer; it takes one wherever it says that it takes a number."""
    return Stabilizer(level, norm_scale=True)


def everywhere(rule: Any) -> Composite:
    """One rule on all affine layers, activations pass."""
    return Composite("everywhere", (Entry(rule, kind="affine"), *PASS))


OTHER_RULES: dict[str, tuple[Composite, Any]] = {
    "alpha2beta1": (alpha_beta(2, 1, "split", EPSILON), rules.AlphaBeta(2, 1, stabilizer=EPSILON)),
    "alpha2beta1 without bias": (
        alpha_beta(2, 1, "none", EPSILON),
        rules.AlphaBeta(2, 1, stabilizer=EPSILON, zero_params="bias"),
    ),
    "gamma": (gamma(), rules.Gamma(stabilizer=EPSILON)),
    "relative epsilon": (epsilon(Relative(0.25)), rules.Epsilon(epsilon=stabilizer(0.25))),
    "relative alpha2beta1": (
        alpha_beta(2, 1, "split", Relative(1e-2)),
        rules.AlphaBeta(2, 1, stabilizer=stabilizer(1e-2)),
    ),
    "w2": (everywhere(WSquared(EPSILON, "squared")), rules.WSquare(stabilizer=EPSILON)),
    "w2 without bias": (everywhere(WSquared(EPSILON)), rules.WSquare(stabilizer=EPSILON, zero_params="bias")),
    "flat": (everywhere(Flat(EPSILON)), rules.Flat(stabilizer=EPSILON)),
    "zb": (everywhere(ZBox(LOW, HIGH, EPSILON)), rules.ZBox(LOW, HIGH, stabilizer=EPSILON)),
}
NORM = [(Sum, rules.Norm(stabilizer=1e-18)), (types.AvgPool, rules.Norm(stabilizer=1e-18))]
COMPOSITES: dict[str, tuple[str | Composite, Callable[..., Any]]] = {
    "epsilon-plus": ("epsilon-plus", composites.EpsilonPlus),
    "epsilon-plus-flat": ("epsilon-plus-flat", composites.EpsilonPlusFlat),
    "epsilon-alpha2-beta1": ("epsilon-alpha2-beta1", composites.EpsilonAlpha2Beta1),
    "epsilon-alpha2-beta1-flat": ("epsilon-alpha2-beta1-flat", composites.EpsilonAlpha2Beta1Flat),
    "epsilon-gamma-box": ("epsilon-gamma-box", partial(composites.EpsilonGammaBox, LOW, HIGH)),
    "excitation-backprop": (
        "excitation-backprop",
        partial(composites.ExcitationBackprop, stabilizer=1e-9, zero_params="bias"),
    ),
    "excitation-backprop with bias": (
        replace(z_plus(EPSILON, bias="split"), start=excitation_backprop().start),
        composites.ExcitationBackprop,
    ),
}
GRADIENTS: dict[str, Callable[..., Any]] = {
    "guided-backprop": composites.GuidedBackprop,
    "deconvnet": composites.DeconvNet,
    "beta-smooth": composites.BetaSmooth,
}


def by_zennit(model: nn.Module, canonizer: Callable[[], Any] | None, hook: Any, x: Tensor) -> Tensor:
    """One rule on all affine layers; the argmax logit is what starts."""
    norm = rules.Norm(stabilizer=1e-18)
    composite = LayerMapComposite(
        [
            (types.Activation, rules.Pass()),
            (types.BatchNorm, rules.Pass()),
            (types.AvgPool, norm),
            (Sum, norm),
            (types.Linear, hook),
        ],
        canonizers=[canonizer()] if canonizer else [],
    )
    return attributed(model, composite, x, by_score)


def by_one(output: Tensor) -> Tensor:
    """1 at the argmax."""
    return nn.functional.one_hot(output.argmax(1), output.shape[1]).to(output.dtype)


def by_score(output: Tensor) -> Tensor:
    """The argmax logit itself."""
    return output * by_one(output)


def attributed(model: nn.Module, composite: Any, x: Tensor, start: Callable[[Tensor], Tensor]) -> Tensor:
    """What arrives at the input from `start`."""
    with Gradient(model, composite) as attributor:
        result: Any = attributor(x.clone(), start)
    return result[1].detach()


def without_eps(model: nn.Module) -> nn.Module:
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = 0.0
    return model


def sample(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_zennit(name: str, rule: str, network) -> None:
    size, canonizer = NETWORKS[name]
    composite, hook = RULES[rule]
    model, x = without_eps(network(name)), sample(size)
    explainer = relcompile.compile(model, x, rule=composite, target="argmax")
    output, relevance = explainer(x)
    single = explainer.float()(x.float())[1]
    expected = by_zennit(model, canonizer, hook, x)
    assert_close(output, model(x), DOUBLE)
    assert_close(relevance, expected, DOUBLE)
    tolerance, least = SINGLE[rule]
    assert_close(single, expected, tolerance)
    assert cosine(single, expected) > least


def thin_vgg16() -> nn.Module:
    """VGG-16 with an eighth of its channels: as deep, and much faster."""
    widths: list[Any] = [width // 8 if isinstance(width, int) else width for width in vgg.cfgs["D"]]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = vgg.VGG(vgg.make_layers(widths), init_weights=False)
        model.classifier = nn.Sequential(
            nn.Linear(64 * 49, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
        )
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.ReLU):
                module.inplace = False  # zennit's smoothed ReLU would find its output where its input was
    return model.double().eval()


@pytest.mark.parametrize("rule", OTHER_RULES)
def test_one_rule_everywhere(rule: str) -> None:
    composite, hook = OTHER_RULES[rule]
    model, x = thin_vgg16(), sample(64)
    relevance = relcompile.compile(model, x, rule=composite, target="argmax")(x)[1]
    assert_close(relevance, by_zennit(model, None, hook, x), FLOAT64)


@pytest.mark.parametrize(
    ("name", "rule"),
    [*product(["thin vgg16", "resnet18"], COMPOSITES), ("resnet50", "epsilon-gamma-box")],
)
def test_every_composite(name: str, rule: str, network) -> None:
    ours, theirs = COMPOSITES[rule]
    model, x = without_eps(network(name)) if "resnet" in name else thin_vgg16(), sample(64)
    bounds = (LOW, HIGH) if ours == "epsilon-gamma-box" else None
    relevance = relcompile.compile(model, x, rule=ours, target="argmax", bounds=bounds)(x)[1]
    canonizers = [ResNetCanonizer()] if "resnet" in name else []
    start = by_one if "excitation" in rule else by_score
    assert_close(relevance, attributed(model, theirs(layer_map=NORM, canonizers=canonizers), x, start), FLOAT64)
    assert_close(relevance, attributed(model, theirs(canonizers=canonizers), x, start), PRESET)


# zennit's smoothed ReLU keeps what it reads: of a module that is used twice, as in a ResNet, only the last input.
@pytest.mark.parametrize(
    ("name", "rule"),
    [*(("thin vgg16", rule) for rule in GRADIENTS), *(("resnet18", rule) for rule in [*GRADIENTS][:2])],
)
def test_every_gradient_composite(name: str, rule: str, network) -> None:
    model, x = network(name) if name == "resnet18" else thin_vgg16(), sample(64)
    gradient = relcompile.compile(model, x, rule=rule, target="argmax")(x)[1]
    assert_close(gradient, attributed(model, GRADIENTS[rule](), x, by_one), FLOAT64)


def test_no_composite_of_zennit_is_missing() -> None:
    named = {name.replace("_", "-") for name in composites.COMPOSITES}
    assert named <= set(PRESETS)
    assert named <= {*COMPOSITES, *GRADIENTS}


@pytest.mark.parametrize("name", NETWORKS)
def test_z_plus_without_bias_conserves(name: str, network) -> None:
    model, x = network(name), sample(NETWORKS[name][0])
    output, relevance, absorbed = relcompile.compile(model, x, rule="z+", target="argmax", absorbed=True)(x)
    logit = output.amax(1)
    assert logit.min() > 0
    assert_conserved(relevance, logit, 1e-3)
    assert float((absorbed.sum(1) / logit).abs().max()) < 1e-3


@pytest.mark.parametrize("rule", [*RULES, "lrp-0"])
def test_the_ledger_accounts_for_everything(rule: str, network) -> None:
    model, x = network("resnet18"), sample(64)
    composite = RULES[rule][0] if rule in RULES else rule
    explainer = relcompile.compile(model, x, rule=composite, target="argmax", absorbed=True)
    output, relevance, absorbed = explainer(x)
    assert absorbed.shape == (2, len(explainer.metadata.layers))
    assert_conserved(torch.cat([relevance.flatten(1), absorbed], 1), output.amax(1), 1e-5)
