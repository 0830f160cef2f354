"""z⁺, αβ and γ where inputs have both signs: as few products as the signs allow, and the oracle's numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import relcompile
from passes.graphs.emitter import aten
from passes.graphs.graph import calls
from passes.relevance.protocol.stabilise import Relative
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets import alpha_beta, gamma, z_plus
from relcompile.methods.presets.lrp import PASS
from relcompile.methods.rules.affine import Gamma
from tests.compare import FLOAT32, FLOAT64, assert_close, assert_conserved
from tests.oracles import affine

RULES = ("z+", "alpha2beta1", "gamma")


def linear_maps() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))


def pooled() -> nn.Module:
    layers = (nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2), nn.ReLU())
    return nn.Sequential(nn.ReLU(), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


# (two affine layers, shape of the input, products of each rule beside the two of the forward pass)
PASSES: dict[str, tuple[nn.Module, tuple[int, ...], tuple[int, int, int]]] = {
    "of both signs": (linear_maps(), (6,), (6, 6, 6)),
    "never negative, one under a ReLU": (
        nn.Sequential(nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)),
        (6,),
        (4, 6, 5),
    ),
    "never negative, one under a clamp": (
        nn.Sequential(nn.ReLU(), nn.Linear(6, 5), nn.ReLU6(), nn.Linear(5, 3)),
        (6,),
        (4, 6, 5),
    ),
    "never negative, under ReLUs, with a pool between": (pooled(), (2, 6, 6), (4, 6, 4)),
}


@pytest.mark.parametrize("name", PASSES)
def test_products_are_as_few_as_the_signs_allow(name: str) -> None:
    model, shape, expected = PASSES[name]
    operators = (aten.linear.default, aten.matmul.default, aten.convolution.default)
    found = [relcompile.compile(model, torch.randn(2, *shape), rule=rule).graph_module for rule in RULES]
    assert tuple(len(calls(graph, *operators)) - 2 for graph in found) == expected


def test_sums_by_parts_are_a_parameter() -> None:
    for rule, products in (("z+,products=parts", 8), ("alpha2beta1,products=parts", 16)):
        graph = relcompile.compile(linear_maps(), torch.randn(2, 6), rule=rule).graph_module
        assert len(calls(graph, aten.linear.default, aten.matmul.default)) - 2 == products


def of_one_sign() -> tuple[nn.Linear, torch.Tensor]:
    """Rows of x and units whose contributions are all positive, all negative, or both."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).double()
    layer.weight.data.copy_(torch.tensor([[1.0, 2, 3, 4], [-1, -2, -3, -4], [1, -2, 3, -4]]))
    return layer, torch.tensor([[1.0, 2, 3, 4], [-1, -2, -3, -4], [1, -2, 3, -4]], dtype=torch.float64)


ALPHA_BETA: Any = partial(affine.alpha_beta, alpha=2, beta=1)
SIGNED: dict[str, tuple[Any, Any]] = {
    "z+": (z_plus(), partial(affine.z_plus, bias="none", eps=1e-9)),
    "z+, parts": (z_plus(products="parts"), partial(affine.z_plus, bias="none", eps=1e-9)),
    "z+, full bias": (z_plus(1e-6, "full"), partial(affine.z_plus, bias="full", eps=1e-6)),
    "alpha2beta1": (alpha_beta(2, 1), partial(ALPHA_BETA, bias="none", eps=1e-9)),
    "alpha2beta1, parts": (alpha_beta(2, 1, products="parts"), partial(ALPHA_BETA, bias="none", eps=1e-9)),
    "alpha2beta1, split bias": (alpha_beta(2, 1, "split", 1e-6), partial(ALPHA_BETA, bias="split", eps=1e-6)),
    "gamma": (gamma(), partial(affine.gamma_generalised, g=0.25, bias="scaled", eps=1e-6)),
}


@pytest.mark.parametrize("name", SIGNED)
def test_units_with_contributions_of_one_sign_equal_the_oracle(name: str) -> None:
    rule, oracle = SIGNED[name]
    layer, x = of_one_sign()
    for target in range(3):
        output, relevance = relcompile.compile(layer, x, rule=rule)(x, target)
        R = torch.zeros_like(output).index_copy_(1, torch.tensor([target]), output[:, target, None])
        expected = oracle(x, layer.weight.detach(), layer.bias.detach(), R.detach())
        assert_close(relevance, expected, FLOAT64)


@pytest.mark.parametrize("epsilon", [0.01, Relative(0.1)])
@pytest.mark.parametrize(("bias", "of_oracle"), [("full", "scaled"), ("plain", "plain"), ("none", "none")])
@pytest.mark.parametrize("signed", [True, False])
def test_gamma_divides_by_sums_of_its_sign(signed: bool, bias: Any, of_oracle: Any, epsilon: Any) -> None:
    torch.manual_seed(0)
    layer, x, R = nn.Linear(6, 5).double(), torch.randn(7, 6).double(), torch.randn(7, 5).double()
    model, x = (layer, x) if signed else (nn.Sequential(nn.ReLU(), layer), x.abs())
    rule = Composite("gamma", (Entry(Gamma(0.25, bias, epsilon), kind="affine"), *PASS))
    relevance = relcompile.compile(model, x, rule=rule, target="seed")(x, R)[1]
    eps = affine.of_rms(0.1) if isinstance(epsilon, Relative) else epsilon
    W, b = layer.weight.detach(), layer.bias.detach()
    assert_close(relevance, affine.gamma_generalised(x, W, b, R, g=0.25, bias=of_oracle, eps=eps), FLOAT64)


def test_nothing_leaks_to_what_gets_nothing_in_float32() -> None:
    """The unit that is explained has no positive contribution: what rounding leaves of their sum shares nothing."""
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 1, bias=False), torch.randn(8, 64)
    layer.weight.data.copy_(layer.weight.abs())
    x = x.clamp(max=0)  # of unknown sign to the compiler
    _, relevance = relcompile.compile(layer, x, rule="alpha2beta1")(x)
    W, R = layer.weight.detach().double(), layer(x).detach().double()
    expected = affine.alpha_beta(x.double(), W, torch.zeros(1).double(), R, alpha=2, beta=1, bias="none", eps=1e-9)
    assert_close(relevance, expected, FLOAT32)


def test_parts_are_exact_where_few_contributions_are_positive() -> None:
    """One input of 64 gives what is positive, 1e-5 of all."""
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 4, bias=False), torch.rand(32, 64) + 0.5
    layer.weight.data.copy_(-layer.weight.abs() - 0.1)
    layer.weight.data[:, 0] = 1e-4
    signed = torch.cat([x, -x])
    W, R = layer.weight.detach().double(), layer(signed).detach().double()
    chosen = torch.zeros_like(R)
    chosen[:, 1] = R[:, 1]
    expected = affine.z_plus(signed.double(), W, torch.zeros(4).double(), chosen, bias="none", eps=1e-9)
    errors = list[float]()
    for products in ("parts", "magnitudes"):
        relevance = relcompile.compile(layer, signed, rule=f"z+,products={products}")(signed, 1)[1]
        errors.append(float((relevance - expected)[:32].abs().amax() / expected[:32].abs().amax()))
    assert errors[0] < 1e-6 < errors[1] < 0.1


def test_absorbed_relevance_is_shared() -> None:
    """Units below have no positive contribution: what they would keep goes to the inputs of the others."""
    torch.manual_seed(0)
    below, above = nn.Linear(6, 32, bias=False).double(), nn.Linear(32, 2, bias=False).double()
    below.weight.data[:8] = -below.weight.data[:8].abs()
    model = nn.Sequential(below, above)
    x = torch.rand(3, 6, dtype=torch.float64)
    target = model(x).argmax(1)
    output, shared = relcompile.compile(model, x, rule="z+,absorbed=shared")(x, target)
    lost = relcompile.compile(model, x, rule="z+")(x, target)[1]
    score = output.gather(1, target[:, None])[:, 0]
    assert_conserved(shared, score, 1e-7)
    assert float((lost.sum(1) / score).max()) < 0.9
