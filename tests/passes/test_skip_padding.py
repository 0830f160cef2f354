"""Zeros around the adjoint of a slice: none are left where all slices, or one, are read by a layer's transpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from passes.graphs.emitter import aten
from passes.graphs.graph import calls
from tests.compare import FLOAT64, assert_close

X = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Net(nn.Module):
    """A layer of four chunks, a function of these, the mean over tokens."""

    def __init__(self, combine: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.combine = nn.Linear(6, 12).double(), combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(*self.layer(x).chunk(4, -1)).mean(1)


CASES: dict[str, tuple[nn.Module, int]] = {
    "all chunks": (Net(lambda a, b, c, d: a.tanh() * b + c * d), 0),
    "one chunk": (Net(lambda a, b, c, d: c.tanh() * 2), 0),
    "two of four": (Net(lambda a, b, c, d: a.tanh() * d), 2),
    "a part of three chunks": (Net(lambda a, b, c, d: torch.cat([a, b, c], -1)[..., 1:4] * d), 1),
    "one chunk, read twice": (Net(lambda a, b, c, d: c.tanh() + c.sigmoid()), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_zeros_are_not_multiplied(name: str) -> None:
    model, left = CASES[name]
    leaf = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    explainer = relcompile.compile(model, X, rule="gradient", target=1)
    assert_close(explainer(X)[1], expected, FLOAT64)
    assert len(calls(explainer.graph_module, aten.constant_pad_nd.default)) == left


def test_steps_of_a_series_are_joined() -> None:
    class Steps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([step.tanh() * (k + 1) for k, step in enumerate(x.unbind(1))]).sum(0)

    leaf = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Steps()(leaf)[:, 1].sum(), leaf)
    explainer = relcompile.compile(Steps(), X, rule="gradient", target=1)
    assert_close(explainer(X)[1], expected, FLOAT64)
    assert not calls(explainer.graph_module, aten.constant_pad_nd.default)


def test_parts_that_are_broadcast_are_no_concatenation() -> None:
    """The grid of a spatial transformer is such a sum: columns, rows and ones, each padded by zeros."""

    class Grid(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.affine_grid(x[:, :2, :3], [x.shape[0], 1, 3, 4], align_corners=False).flatten(1)

    leaf = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Grid()(leaf)[:, 1].sum(), leaf)
    assert_close(relcompile.compile(Grid(), X, rule="gradient", target=1)(X)[1], expected, FLOAT64)
