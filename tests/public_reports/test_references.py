"""References that were refused or crashed: beside unexplained inputs, one for each, a background, a runtime one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relcompile
from tests.compare import FLOAT64, assert_close

Join = Callable[[Tensor, Tensor], Tensor]
JOINS: dict[str, Join] = {
    "concatenated": lambda a, b: torch.cat([a, b], 1),
    "stacked": lambda a, b: torch.stack([a, b], 1).relu(),
    "multiplied": lambda a, b: a * b,
    "added": lambda a, b: (b - a).sigmoid(),
    "chosen by": lambda a, b: torch.where(b > 0, a, b),
    "the larger": torch.maximum,
    "sized by": lambda a, b: a.reshape(b.shape[0], 2, 2),
}
X = torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([0, 3, 4])


class Net(nn.Module):
    """Features and an embedding, joined, under one more layer."""

    def __init__(self, join: Join) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.features, self.join = nn.Embedding(5, 4), nn.Linear(3, 4), join
        width = self.joined(torch.rand(2, 3), torch.tensor([1, 2])).shape[1]
        self.scores = nn.Linear(width, 2)
        self.double()

    def joined(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.join(torch.tanh(self.features(x)), self.embedding(ids)).flatten(1)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.scores(self.joined(x, ids))


@pytest.mark.parametrize("join", JOINS)
def test_a_constant_reference_beside_an_unexplained_input(join: str) -> None:
    model, x0 = Net(JOINS[join]), torch.tensor([[0.2, -0.1, 0.4]], dtype=torch.float64)
    found = relcompile.compile(model, (X, IDS), rule="deeplift-rescale", reference=x0, target=1)(X, IDS)[1]
    change = (model(X, IDS) - model(x0.expand_as(X), IDS))[:, 1].detach()
    assert_close(found.sum(1), change, FLOAT64)
