"""Relevance that was in no output: of inputs that are not explained, of constants, beside the layer that is read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import relcompile
from tests.compare import FLOAT64, assert_close

X = torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([0, 3, 4])


class Beside(nn.Module):
    """Features, an embedding and a constant, concatenated under a layer without a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.embedding = nn.Linear(3, 4, bias=False), nn.Embedding(5, 4)
        self.scores = nn.Linear(10, 2, bias=False)
        self.double()

    def joined(self, x: Tensor, ids: Tensor) -> Tensor:
        constant = torch.full((x.shape[0], 2), 0.7, dtype=x.dtype)
        return torch.cat([torch.relu(self.features(x)), self.embedding(ids), constant], 1)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.scores(self.joined(x, ids))


@pytest.mark.parametrize("at", [None, "features"])
def test_what_is_not_explained_has_a_column(at: str | None) -> None:
    model = Beside()
    explainer = relcompile.compile(model, (X, IDS), rule="lrp-0", target=1, at=at, absorbed=True)
    scores, relevance, absorbed = explainer(X, IDS)
    shares = model.joined(X, IDS) * model.scores.weight[1]
    assert_close(absorbed[:, -1], shares[:, 4:].sum(1).detach(), FLOAT64)
    assert_close(relevance.sum(1) + absorbed.sum(1), scores[:, 1], FLOAT64)
    assert absorbed.shape[1] == len(explainer.metadata.layers)
    assert explainer.metadata.layers[-1].name == "(not explained)"


def test_a_constant_without_a_batch() -> None:
    class Larger(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.maximum(x, torch.full((3,), 0.5, dtype=x.dtype)).sum(1, keepdim=True)

    _, relevance, absorbed = relcompile.compile(Larger(), X, rule="z+", target=0, absorbed=True)(X)
    assert_close(relevance, X * (X > 0.5), FLOAT64)
    assert_close(absorbed.sum(1), 0.5 * (X <= 0.5).sum(1), FLOAT64)
