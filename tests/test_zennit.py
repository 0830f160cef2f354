"""z+ and epsilon on whole networks against zennit, which works with hooks on modules.

zennit needs its canonizers to see batch norms and residual sums. Conventions (peers.md section 4): our z+ leaves
the bias out (`zero_params="bias"`), both stabilise with z + 1e-6 sign(z); sums and average pools are shared in
proportion (`Norm`), ours without a stabiliser, so zennit's is made small there; activations pass relevance on.
zennit's merged batch norms keep their eps and so still divide by sqrt(1 + eps), 5e-6 a layer: here eps is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zennit import rules, types
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite
from zennit.layer import Sum
from zennit.torchvision import ResNetCanonizer

import relcompile
from relcompile.composites import Composite
from relcompile.presets import epsilon, z_plus
from tests.compare import assert_close, assert_conserved, cosine

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
# Same mathematics but for zennit's 1e-12 at sums and averages; in float32 rounding, divided by 1e-6 stabilisers
# (zennit in float32 is as far from zennit in float64; the forward pass decides: tests/test_precision.py).
DOUBLE = 1e-8
SINGLE = {"z+": (1e-3, 0.999999), "z+ with bias": (1e-3, 0.999999), "epsilon": (5e-3, 0.99999)}


def by_zennit(model: nn.Module, canonizer: Callable[[], Any] | None, hook: Any, x: Tensor) -> Tensor:
    """Relevance of the argmax logit, which is what starts."""
    norm = rules.Norm(stabilizer=1e-12)
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
    with Gradient(model, composite) as attributor:
        _, relevance = attributor(x.clone(), lambda y: y * nn.functional.one_hot(y.argmax(1), y.shape[1]))
    return relevance.detach()


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
