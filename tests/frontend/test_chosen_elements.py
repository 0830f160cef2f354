"""Elements that a mask chooses: by a stored one they are a list; by the numbers of an input they are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.errors import CaptureError
from tests.compare import FLOAT64, assert_close
from tests.oracles.nets import Function

X = torch.randn(3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ROWS, COLUMNS = torch.tensor([True, False, True, True]), torch.tensor([True, False, True, True, False, True])
PLACES = torch.arange(24).reshape(4, 6) % 3 > 0


class Masked(nn.Module):
    """A mask that is a buffer, in front of a layer whose size is that of what it chooses."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2).double()
        self.register_buffer("mask", ROWS)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.sum(2)[:, self.mask])


def assigned(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, ROWS] = x[:, :3] * 2
    y[..., COLUMNS] *= 3
    return y.flatten(1)


CHOSEN: dict[str, nn.Module] = {
    "by a buffer": Masked(),
    "by a constant, along the last axis": Function(lambda x: x[..., COLUMNS].flatten(1)),
    "by a computed mask": Function(lambda x: (x * x)[:, ROWS.logical_not()].mean(2).repeat(1, 2)),
    "by a mask of two axes": Function(lambda x: x[:, PLACES]),
    "as many as are counted": Function(lambda x: (lambda y: y.softmax(1) * y.shape[1])(x.sum(2)[:, ROWS])),
    "assigned": Function(assigned),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CHOSEN)
def test_the_gradient_is_autograds_at_every_batch(name: str) -> None:
    model = CHOSEN[name]
    explainer = relcompile.compile(model, X, rule="gradient", target=1)
    for x in (X, X[:1]):
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
        output, relevance = explainer(x)
        assert_close(output, model(x), FLOAT64)
        assert_close(relevance, expected, FLOAT64)


def test_as_many_as_the_numbers_say_are_refused() -> None:
    positive = Function(lambda x: torch.masked_select(x, x > 0))
    with pytest.raises(CaptureError, match=r"depends on the numbers that go in: masked_select .*torch.where"):
        relcompile.compile(positive, X, rule="gradient")
