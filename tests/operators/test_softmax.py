"""A classifier that ends in a softmax: gradients are those of its probabilities, rules explain the scores under it.

Inside a network (attention) gradients pass it, and other methods refuse it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from passes.errors import UnsupportedOperatorError
from relcompile.errors import CaptureError
from tests.compare import FLOAT64, ONNX, assert_close

X = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGET = torch.tensor([0, 4, 2])
ENDS = {"softmax": nn.Softmax(1), "log-softmax": nn.LogSoftmax(-1)}


def scores() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).double()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("rule", ["epsilon", "z+", "dtd", "excitation-backprop", "deeplift-rescale", "root"])
def test_rules_explain_the_scores(rule: str, end: str) -> None:
    model = nn.Sequential(*scores(), ENDS[end])
    bounds = (-5.0, 4.0) if rule == "dtd" else None
    output, relevance = relcompile.compile(model, X, rule=rule, bounds=bounds)(X, TARGET)
    assert_close(output, model(X).detach(), FLOAT64)
    assert_close(relevance, relcompile.compile(scores(), X, rule=rule, bounds=bounds)(X, TARGET)[1], FLOAT64)


@pytest.mark.parametrize("end", ENDS)
def test_gradients_are_of_the_probabilities(end: str, tmp_path: Path) -> None:
    model, leaf = nn.Sequential(*scores(), ENDS[end]), X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[torch.arange(3), TARGET].sum(), leaf)
    assert_close(relcompile.compile(model, X, rule="gradient")(X, TARGET)[1], expected, FLOAT64)
    relcompile.compile(model.float(), X.float(), rule="gradient").save(tmp_path / "x.onnx")
    found = relcompile.load(tmp_path / "x.onnx").explain(X.float().numpy(), target=TARGET.numpy())
    assert_close(found.relevance, expected, ONNX)


class Attention(nn.Module):
    """Attention of `heads` places to one another, as it is written by hand."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = nn.ModuleList([nn.Linear(6, 18) for _ in range(layers)])
        self.score = nn.Linear(6, 5)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)
        for head in self.heads:
            q, k, v = head(x).chunk(3, -1)
            x = x + functional.softmax(q @ k.transpose(1, 2) / 6**0.5, -1) @ v
        return self.score(x.mean(1)).log_softmax(-1)


INSIDE: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: Attention(2),
    "a softmax before a layer": lambda: nn.Sequential(*scores(), nn.Softmax(1), nn.Linear(5, 5).double()),
    "log-softmax before a sigmoid": lambda: nn.Sequential(*scores(), nn.LogSoftmax(1), nn.Sigmoid()),
    "over channels": lambda: nn.Sequential(nn.Conv2d(2, 4, 3).double(), nn.Softmax(1), nn.Flatten(), nn.Tanh()),
}


@pytest.mark.parametrize("name", INSIDE)
def test_the_gradient_passes_a_softmax_inside(name: str, tmp_path: Path) -> None:
    model, leaf = INSIDE[name](), X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[torch.arange(3), TARGET].sum(), leaf)
    assert_close(relcompile.compile(model, X, rule="gradient")(X, TARGET)[1], expected, FLOAT64)
    assert_close(relcompile.compile(model, X, rule="gradient*input")(X, TARGET)[1], X * expected, FLOAT64)
    relcompile.compile(model.float(), X.float(), rule="gradient").save(tmp_path / "x.onnx")
    found = relcompile.load(tmp_path / "x.onnx").explain(X.float().numpy(), target=TARGET.numpy())
    assert_close(found.relevance, expected, ONNX)


@pytest.mark.parametrize("rule", ["deeplift-rescale", "root"])
def test_other_methods_refuse_attention(rule: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"(?s)1 operator has no rule:\nsoftmax: .*attention"):
        relcompile.compile(Attention(), X, rule=rule)


@pytest.mark.parametrize("rule", ["z+", "epsilon"])
def test_a_softmax_that_makes_no_attention_weights_is_refused(rule: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"(?s)1 operator has no rule:\nsoftmax: .*attention weights"):
        relcompile.compile(INSIDE["a softmax before a layer"](), X, rule=rule)


def test_a_softmax_over_the_batch_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"(?s)samples of a batch see each other.*softmax"):
        relcompile.compile(nn.Sequential(*scores(), nn.Softmax(0), nn.Tanh()), X, rule="gradient")
