"""Operators one by one: the rule `gradient` is autograd, in PyTorch and as lowered for export."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import relcompile
from relcompile.backend.onnx_file import lowered
from tests.compare import FLOAT64, assert_close
from tests.oracles.nets import Function

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGET = torch.tensor([0, 5, 2])


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "where, two branches": lambda x: torch.where(x > 0.2, x * 3, x.sigmoid()),
    "where, one value twice": lambda x: torch.where(x > 0.2, x, x),
    "where, second branch": lambda x: torch.where(x > 0.2, x.detach(), x * 2),
    "where, number second": lambda x: torch.where(x > 0.2, x * 2, 1.5),
    "where, number first": lambda x: torch.where(x > 0.2, 1.5, x * 2),
    "logit": lambda x: torch.logit(x.sigmoid()),
    "logit, clamped": lambda x: torch.logit(x, eps=0.2),
    "power 0 at 0": lambda x: x.relu() ** 0 + x,
    "power 1 at 0": lambda x: x.relu() ** 1,
    "detached gate": lambda x: x * x.sigmoid().detach(),
    "detached summand": lambda x: x.tanh() + (x * 2).detach(),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_autograd(name: str) -> None:
    leaf = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(CASES[name](leaf)[torch.arange(3), TARGET].sum(), leaf)
    explainer = relcompile.compile(Function(CASES[name]), X[:2], rule="gradient")
    for module in (explainer, lowered(explainer.graph_module)):
        output, found = module(X, TARGET)
        assert_close(output, CASES[name](X), FLOAT64)
        assert_close(found, expected, FLOAT64)
