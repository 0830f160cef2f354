"""The averaged second-order expansion: its integral, Shapley values, conservation, and sums that keep parts apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from relcompile.errors import CompositeError
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets import learned_root
from relcompile.methods.rules.roots.between_roots import BetweenRoots, ContributionsApart
from relcompile.methods.rules.roots.learned_root import LearnedRoot
from relcompile.methods.starts import Cotangent
from tests.compare import FLOAT64, assert_close, assert_conserved
from tests.oracles import learned_root as oracle

INTEGRAL = 8 / torch.pi  # the kappa at which contributions leave one by one


def every_input_a_signal() -> Composite:
    """Without a search and without a sharing of what is absorbed: the expansion alone."""
    expanding = LearnedRoot(0, gamma=0.0, bias="full", epsilon=1e-12)
    entries = (Entry(expanding, kind="affine"), Entry(ContributionsApart("full"), kind="shift"))
    return replace(learned_root().with_entries(*entries), start=Cotangent())


def test_slope_is_the_mean_over_all_coalitions() -> None:
    """A is the mean over p of Phi(p z / sqrt(p (1 - p) V)), here by the midpoint rule."""
    z = torch.linspace(-6, 6, 49, dtype=torch.float64)
    p = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    mean = torch.special.ndtr(z[:, None] * (p / (1 - p)).sqrt()).mean(1)
    A, _ = oracle.expansion(z.masked_fill(z == 0, 1e-9), torch.ones_like(z), torch.relu, INTEGRAL)
    assert float((A - mean).abs().max()) < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_units_share_about_as_shapley_does(seed: int) -> None:
    """Of 12 contributions the mean error is a small part of that of LRP-0, which sees only whether z > 0."""
    torch.manual_seed(seed)
    errors = list[Tensor]()
    for _ in range(20):
        c = torch.randn(12, dtype=torch.float64)
        A, B = oracle.expansion(c.sum(), (c**2).sum(), torch.relu, INTEGRAL)
        exact = oracle.shapley(c, torch.relu)
        found = torch.stack([A * c + B * c**2, c * (c.sum() > 0)])
        errors.append((found - exact).abs().mean(1))
    averaged, lrp = torch.stack(errors).mean(0)
    assert averaged < 0.2 * lrp


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": functional.relu6,
    "leaky_relu": functional.leaky_relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "hardswish": functional.hardswish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
}


class Unit(nn.Module):
    """A layer, an activation, and a read-out."""

    def __init__(self, f: Callable[[Tensor], Tensor], *, bias: bool) -> None:
        super().__init__()
        self.layer, self.f, self.head = nn.Linear(12, 7, bias=bias), f, nn.Linear(7, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.f(self.layer(x) * 3))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_conserves_what_the_activation_adds_to_its_value_at_zero(name: str) -> None:
    torch.manual_seed(2)
    network, f = Unit(ACTIVATIONS[name], bias=False).double(), ACTIVATIONS[name]
    x = torch.randn(4, 12, dtype=torch.float64)
    output, relevance = relcompile.compile(network, x, rule=every_input_a_signal(), target=1)(x)
    at_zero = network.head(f(torch.zeros(1, 7, dtype=torch.float64)))
    assert_conserved(relevance.detach(), (output - at_zero)[:, 1].detach(), 1e-6)


def test_functions_that_stop_at_zero_pass_relevance() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sqrt(x)

    x = torch.rand(2, 4, dtype=torch.float64)
    _, relevance = relcompile.compile(Root(), x, rule=Composite("b", (Entry(BetweenRoots()),)), target="seed")(x, x)
    assert_close(relevance, x, FLOAT64)


class Branches(nn.Module):
    """relu(k (A x - B y) + c), or the same layer on (x, y) side by side."""

    def __init__(self, *, joined: bool, inputs: int = 5, units: int = 6) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.joined = joined
        self.a, self.b = nn.Linear(inputs, units, bias=False), nn.Linear(inputs, units, bias=False)
        self.both, self.head = nn.Linear(2 * inputs, units), nn.Linear(units, 3)
        self.register_buffer("k", torch.zeros(units))
        self.register_buffer("c", torch.zeros(units))
        self.double()
        sizes = ((units, inputs), (units, inputs), (units,), (units,))
        a, b, k, c = (torch.randn(*size, dtype=torch.float64) for size in sizes)
        both = k[:, None] * torch.cat([a, -b], 1)
        state = {"a.weight": a, "b.weight": b, "both.weight": both, "both.bias": c, "k": k, "c": c}
        self.load_state_dict(state, strict=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if self.joined:
            return self.head(torch.relu(self.both(torch.cat([x, y], 1))))
        return self.head(torch.relu((self.a(x) - self.b(y)) * self.k + self.c))


def test_sums_scales_and_constants_keep_contributions_apart() -> None:
    torch.manual_seed(3)
    x, y = torch.randn(2, 3, 5, dtype=torch.float64)
    found, expected = (
        relcompile.compile(Branches(joined=joined), (x, y), rule=every_input_a_signal(), target=1)(x, y)[1:]
        for joined in (False, True)
    )
    for one, other in zip(found, expected, strict=True):
        assert_close(one.detach(), other.detach(), FLOAT64)


def test_what_an_added_constant_absorbs_is_handed_back() -> None:
    """So many inputs and units that some have relevance of either sign."""
    torch.manual_seed(3)
    x, y = torch.randn(2, 3, 60, dtype=torch.float64)
    explainer = relcompile.compile(Branches(joined=False, inputs=60, units=80), (x, y), rule="root", target=1)
    output, *relevance = (value.detach() for value in explainer(x, y))
    assert_conserved(torch.cat(relevance, 1), output[:, 1], 1e-9)


@pytest.mark.parametrize("settings", [{"kappa": 0.0}, {"near": -1.0}])
def test_bad_parameters_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(CompositeError, match="finite number above 0"):
        BetweenRoots(**settings)
