"""A classifier that ends in a softmax: gradients are those of its probabilities, rules explain the scores under it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from passes.errors import UnsupportedOperatorError
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
    bounds = (-5.0, 4.0)
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
    def forward(self, x: Tensor) -> Tensor:
        return (functional.softmax(x.flatten(2), -1) @ x.flatten(2).transpose(1, 2)).flatten(1)


def test_a_softmax_inside_is_refused() -> None:
    with pytest.raises(UnsupportedOperatorError, match="softmax"):
        relcompile.compile(Attention(), X, rule="epsilon")
