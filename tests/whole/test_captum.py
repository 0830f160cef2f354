"""Whole module networks against captum: LRP, DeepLIFT, guided and plain gradients, Integrated Gradients, Grad-CAM.

Conventions (docs/conventions.md): captum stabilises with z + 1e-9 sign(z), keeps the bias whole in every denominator,
scales no bias in its gamma rule and does not split the input by sign in its z+ rule: x must not be negative there.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from captum.attr import (
    LRP,
    Deconvolution,
    DeepLift,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    Saliency,
)
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from torch import Tensor, nn
from torch.fx import symbolic_trace

import relcompile
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets import alpha_beta, epsilon, integrated_gradients
from relcompile.methods.presets.lrp import PASS
from relcompile.methods.rules.affine import Gamma
from tests.compare import FLOAT64, assert_close

pytestmark = [
    pytest.mark.sampled(4),
    pytest.mark.filterwarnings("ignore:.*backward hooks.*:UserWarning"),  # captum's own advice
]
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
    rule = Gamma(0.25, bias="plain", epsilon=1e-9)
    return Composite("captum-gamma", (Entry(rule, kind="affine"), *PASS))


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
    for layer in model.modules():  # captum reads an attribute that modules do not declare
        if isinstance(layer, nn.Conv2d | nn.Linear):
            vars(layer)["rule"] = captum_rule()
        if isinstance(layer, nn.MaxPool2d | nn.AdaptiveAvgPool2d):
            vars(layer)["rule"] = EpsilonRule(POOLS)
    expected = LRP(model).attribute(x.clone().requires_grad_(), target=target).detach()
    assert_close(found, expected, FLOAT64)


class Once(nn.Module):
    """A product with 1: captum's hooks of a ReLU and of a max pool on the same tensor overwrite each other."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


def for_captum(model: nn.Module, pool: nn.Module | None = None, *, apart: bool = True) -> nn.Module:
    """A module for every use, as captum wants it; max pools apart from what is before them, or replaced."""
    traced = symbolic_trace(model)
    for node in [node for node in traced.graph.nodes if node.op == "call_module"]:
        module = traced.get_submodule(node.target)
        if isinstance(module, nn.MaxPool2d):
            module = pool or module
            module = nn.Sequential(Once(), module) if apart else module
        elif isinstance(module, nn.ReLU):
            module = nn.ReLU()
        node.target = f"{node.name}_{node.target.replace('.', '_')}"
        traced.add_submodule(node.target, deepcopy(module))
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def by_grad_cam(layer: str) -> Callable[[nn.Module, Tensor], Tensor]:
    def attribute(model: nn.Module, x: Tensor) -> Tensor:
        maps: Any = LayerGradCam(model, model.get_submodule(layer)).attribute(x, target=TARGET, relu_attributions=True)
        return LayerAttribution.interpolate(maps, x.shape[2:], interpolate_mode="bilinear")

    return attribute


def by_hooks(method: Callable[[nn.Module], Any]) -> Callable[[nn.Module, Tensor], Tensor]:
    return lambda model, x: method(for_captum(model, apart=False)).attribute(x, target=TARGET)


def by_path(model: nn.Module, x: Tensor) -> Tensor:
    return IntegratedGradients(model).attribute(x, target=TARGET, n_steps=8, method="riemann_middle")


GRADIENTS: dict[str, tuple[str, str | Composite, str | None, Callable[[nn.Module, Tensor], Any]]] = {
    "guided": ("vgg11", "guided-backprop", None, by_hooks(GuidedBackprop)),
    "guided, residual": ("resnet18", "guided-backprop", None, by_hooks(GuidedBackprop)),
    "deconvolution": ("vgg11", "deconvnet", None, by_hooks(Deconvolution)),
    "deconvolution, residual": ("resnet18", "deconvnet", None, by_hooks(Deconvolution)),
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


# captum's max pools lose what windows share: an overlapping pool is replaced by one that does not overlap.
APART = nn.MaxPool2d(2)


def deeplift(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Captum's map, ours, and f(x) - f(x0) at the target. (On a grey x0 maxima are ties, which rounding decides.)"""
    x.requires_grad_()
    x0 = x[:1].detach().flip(3)
    found = relcompile.compile(model, x, rule="deeplift-rescale", reference=x0)(x, TARGET)[1].detach()
    references = x0.repeat(2, 1, 1, 1).requires_grad_()
    change = (model(x) - model(references))[torch.arange(2), TARGET].detach()
    return DeepLift(model).attribute(x, references, target=TARGET).detach(), found, change


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "pool"), [("vgg16", None), ("resnet18", APART), ("resnet50", APART)])
def test_deeplift(name: str, pool: nn.Module | None, network) -> None:
    expected, found, change = deeplift(for_captum(network(name, num_classes=8), pool), sample(64))
    assert_close(found, expected, FLOAT64)
    assert_close(found.sum((1, 2, 3)), change, FLOAT64)


@pytest.mark.parametrize(
    ("pool", "apart"), [(APART, False), (None, True)], ids=["ReLU at a max pool", "overlapping windows"]
)
def test_where_captums_deeplift_differs(pool: nn.Module | None, apart: bool, network) -> None:
    """Each is one step from the network on which both are equal; ours adds up on all three."""
    expected, found, change = deeplift(for_captum(network("resnet18", num_classes=8), pool, apart=apart), sample(64))
    assert_close(found.sum((1, 2, 3)), change, FLOAT64)
    assert float((expected - found).abs().max()) > 0.1 * float(found.abs().max())
