"""The learned root: equal to autograd in matrices, conserving, independent of the batch, and it moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from relcompile.errors import CompositeError
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.rules.roots.between_roots import BetweenRoots
from relcompile.methods.rules.roots.learned_root import LearnedRoot
from relcompile.methods.starts import Cotangent
from tests.compare import FLOAT64, ONNX, assert_close, assert_conserved
from tests.kernels import assert_cuda_kernels
from tests.methods.rules.test_released_roots import NETWORKS, built
from tests.oracles import learned_root as oracle
from tests.oracles.affine import matrix_of

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (lambda: nn.Linear(20, 9), (20,)),
    "convolution": (lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1), (3, 6, 5)),
    "groups, no bias": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), (4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), (4, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), (3, 3, 3)),
}
RULES = {
    "epsilon": LearnedRoot(gamma=0.0),
    "gamma": LearnedRoot(gamma=0.5),
    "absorbing": LearnedRoot(bias="full"),
}
SEARCHES = {
    "every input": LearnedRoot(steps=0),
    "one step": LearnedRoot(steps=1),
    "four steps": LearnedRoot(steps=4),
    "absorbing": LearnedRoot(steps=2, bias="full"),
}


class Activated(nn.Module):
    """A layer and an activation."""

    def __init__(self, layer: nn.Module, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.f = layer, f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.layer(x))


def sample(name: str, *, signed: bool) -> tuple[nn.Module, Tensor, Tensor]:
    """A layer, two inputs, and relevance of both signs at its output."""
    torch.manual_seed(1)
    layer, shape = LAYERS[name]
    module, x = layer().double(), torch.randn(2, *shape, dtype=torch.float64) * 2
    x = x if signed else x.clamp(min=0)
    return module, x, torch.randn_like(module(x)).detach()


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "positive"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", LAYERS)
def test_layer_alone_equals_its_oracle(name: str, rule: str, signed: bool) -> None:
    layer, x, R = sample(name, signed=signed)
    W, b = matrix_of(layer, tuple(x.shape[1:]))
    own = RULES[rule]
    shared = own.bias == "shared"
    expected = oracle.alone(x.flatten(1), W, b, R.flatten(1), gamma=own.gamma, shared=shared, eps=own.epsilon)
    explainer = relcompile.compile(layer, x, rule=Composite("root", (Entry(own),)), target="seed")
    assert_close(explainer(x, R)[1], expected.reshape(x.shape), FLOAT64)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "positive"])
@pytest.mark.parametrize("rule", SEARCHES)
@pytest.mark.parametrize("name", LAYERS)
def test_layer_under_a_relu_equals_autograd(name: str, rule: str, signed: bool) -> None:
    check_under_activation(name, SEARCHES[rule], torch.relu, signed=signed)


@pytest.mark.parametrize("f", [functional.relu6, functional.silu, torch.sigmoid])
def test_layer_under_another_activation_equals_autograd(f: Callable[[Tensor], Tensor]) -> None:
    check_under_activation("convolution", SEARCHES["one step"], f, signed=True)


def check_under_activation(name: str, own: LearnedRoot, f: Callable[[Tensor], Tensor], *, signed: bool) -> None:
    layer, x, m = sample(name, signed=signed)
    W, b = matrix_of(layer, tuple(x.shape[1:]))
    settings: dict[str, Any] = {"kappa": 5.0, "steps": own.steps, "shared": own.bias == "shared"}
    expected = oracle.under_activation(x.flatten(1), W, b, m.flatten(1), f, **settings).reshape(x.shape)
    entries = (Entry(own, kind="affine"), Entry(BetweenRoots(5.0, near=1e-9), kind="activation"))
    composite = Composite("root", entries, start=Cotangent())
    explainer = relcompile.compile(Activated(layer, f), x, rule=composite, target="seed")
    assert_close(explainer(x, m)[1], expected, FLOAT64)


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_conserves_and_batch_does_not_matter(name: str, steps: int) -> None:
    network, x = built(name)
    explainer = relcompile.compile(network, x, rule=f"root={steps}", target="argmax")
    output, relevance = explainer(x)
    assert_conserved(relevance, output.amax(1).detach(), 1e-3)
    alone = torch.cat([explainer(x[n : n + 1])[1] for n in range(3)])
    assert_close(relevance[:3].detach(), alone.detach(), 1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_roots_move_and_the_response_falls(name: str) -> None:
    network, x = built(name, torch.float64)
    reports = [relcompile.compile(network, x, rule=f"root={k}", target=1, roots=True)(x)[2].detach() for k in (1, 10)]
    distance, before, after = reports[0][..., :3].median(0).values.unbind(1)
    assert 0.1 < distance.median() < 0.9
    assert (after < before).all()
    hidden = [report[:, :-1, 2] for report in reports]  # the head has one relevant unit: one step ends its search
    assert (hidden[1] < hidden[0]).all(), "ten steps must come closer than one, in every layer"


def test_more_steps_never_raise_the_loss() -> None:
    layer, x, R = sample("convolution", signed=True)
    after = list[Tensor]()
    for steps in range(1, 7):
        rule = Composite("root", (Entry(LearnedRoot(steps)),))
        after.append(relcompile.compile(layer, x, rule=rule, target="seed", roots=True)(x, R)[2][:, 0, 2])
    falls = torch.stack(after).diff(dim=0)
    assert (falls < 0).all()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", NETWORKS)
def test_survives_the_onnx_file(name: str, tmp_path: Path) -> None:
    network, x = built(name)
    explainer = relcompile.compile(network, x[:2], rule="root=2", target=1)
    explainer.save(tmp_path / "root.onnx")
    assert_cuda_kernels(tmp_path / "root.onnx")
    production = relcompile.load(tmp_path / "root.onnx", device="cpu")
    for batch in (1, 5):
        found = production.explain(x[:batch].numpy()).relevance
        assert_close(found, explainer(x[:batch])[1].detach().numpy(), ONNX)


@pytest.mark.parametrize(("rule", "message"), [("root=1.5", "whole"), ("root=-1", "steps=-1"), ("root=inf", "finite")])
def test_bad_steps_are_refused(rule: str, message: str) -> None:
    network, x = built("vgg")
    with pytest.raises(CompositeError, match=message):
        relcompile.compile(network, x, rule=rule)
