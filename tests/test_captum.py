"""Whole module networks against captum: LRP, guided and plain gradients, Integrated Gradients, Grad-CAM.

Conventions (docs/conventions.md): captum stabilises with z + 1e-9 sign(z), keeps the bias whole in every denominator,
scales no bias in its gamma rule and does not split the input by sign in its z+ rule: x must not be negative there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import (
    LRP,
    Deconvolution,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    Saliency,
)
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from torch import Tensor, nn

import relcompile
from relcompile.composites import Composite, Entry
from relcompile.presets import alpha_beta, epsilon, integrated_gradients
from relcompile.rules.affine import Gamma
from relcompile.rules.pointwise import PassThrough
from tests.compare import FLOAT64, assert_close

pytestmark = pytest.mark.filterwarnings("ignore:.*backward hooks.*:UserWarning")  # captum's own advice
TARGET = torch.tensor([1, 7])
# captum stabilises pools with 1e-9, too; relcompile divides by nothing there, so this is made small.
POOLS = 1e-18


def sample(size: int) -> Tensor:
    """Not negative, as a photograph is."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def unshared(model: nn.Module) -> nn.Module:
    """captum refuses to hook functions that work in place."""
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def captums_gamma() -> Composite:
    entries = (Entry(Gamma(0.25, bias="plain", epsilon=1e-9), kind="affine"), Entry(PassThrough(), kind="activation"))
    return Composite("captum-gamma", entries)


RULES: dict[str, tuple[Composite, Callable[[], Any]]] = {
    "epsilon": (epsilon(1e-9), EpsilonRule),
    "gamma": (captums_gamma(), GammaRule),
    "z+": (alpha_beta(1, 0, "full", 1e-9), Alpha1_Beta0_Rule),
    "z+ without bias": (alpha_beta(1, 0, "none", 1e-9), lambda: Alpha1_Beta0_Rule(set_bias_to_zero=True)),
}


@pytest.mark.parametrize("rule", RULES)
def test_lrp(rule: str, network) -> None:
    composite, captum_rule = RULES[rule]
    model, x = unshared(network("vgg11", num_classes=8)), sample(48)
    target = model(x).argmax(1)  # a positive logit: captum's gamma does not look at the sign of z
    found = relcompile.compile(model, x, rule=composite)(x, target)[1]
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.rule = captum_rule()
        if isinstance(module, nn.MaxPool2d | nn.AdaptiveAvgPool2d):
            module.rule = EpsilonRule(POOLS)
    expected = LRP(model).attribute(x.clone().requires_grad_(), target=target).detach()
    assert_close(found, expected, FLOAT64)


def by_grad_cam(layer: str) -> Callable[[nn.Module, Tensor], Tensor]:
    def attribute(model: nn.Module, x: Tensor) -> Tensor:
        maps = LayerGradCam(model, model.get_submodule(layer)).attribute(x, target=TARGET, relu_attributions=True)
        return LayerAttribution.interpolate(maps, x.shape[2:], interpolate_mode="bilinear")

    return attribute


def by_path(model: nn.Module, x: Tensor) -> Tensor:
    return IntegratedGradients(model).attribute(x, target=TARGET, n_steps=8, method="riemann_middle")


GRADIENTS: dict[str, tuple[str, str | Composite, str | None, Callable[[nn.Module, Tensor], Any]]] = {
    "guided": ("vgg11", "guided-backprop", None, lambda model, x: GuidedBackprop(model).attribute(x, target=TARGET)),
    "deconvolution": ("vgg11", "deconvnet", None, lambda model, x: Deconvolution(model).attribute(x, target=TARGET)),
    "saliency": ("resnet18", "gradient", None, lambda model, x: Saliency(model).attribute(x, TARGET, abs=False)),
    "input x gradient": (
        "resnet18",
        "gradient*input",
        None,
        lambda model, x: InputXGradient(model).attribute(x, target=TARGET),
    ),
    "integrated gradients": ("resnet18", integrated_gradients(8), None, by_path),
    "grad-cam, default layer": ("resnet18", "grad-cam", None, by_grad_cam("layer4")),
    "grad-cam, named layer": ("resnet18", "grad-cam", "layer3", by_grad_cam("layer3")),
    "grad-cam of a plain network": ("vgg11", "grad-cam", None, by_grad_cam("features.19")),
}


@pytest.mark.parametrize("case", GRADIENTS)
def test_gradients(case: str, network) -> None:
    name, rule, at, attribute = GRADIENTS[case]
    model, x = unshared(network(name, num_classes=8)), sample(64)
    found = relcompile.compile(model, x, rule=rule, at=at)(x, TARGET)[1]
    expected = attribute(model, x.clone().requires_grad_()).detach()
    assert expected.abs().max() > 0
    assert_close(found, expected, FLOAT64)
