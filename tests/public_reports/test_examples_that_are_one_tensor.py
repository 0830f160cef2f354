"""One tensor as the example of two inputs: they are two inputs all the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import relcompile
from tests.compare import FLOAT64, assert_close


class Masked(nn.Module):
    """The sum of embedded tokens that count."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(10, 4), nn.Linear(4, 3)
        self.double()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head((self.embedding(ids) * mask[..., None]).sum(1))


ONES = torch.ones(2, 5, dtype=torch.int64)
EXAMPLES = {"the same": (ONES, ONES), "a view": (ONES, ONES[:]), "two": (ONES, ONES.clone())}


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_input_goes_where_it_belongs(name: str) -> None:
    model = Masked()
    explainer = relcompile.compile(model, EXAMPLES[name], rule="gradient*input", target=1)
    ids = torch.tensor([[1, 2, 3, 4, 5], [9, 8, 7, 6, 5]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    output, relevance = explainer(ids, mask)
    assert_close(output, model(ids, mask).detach(), FLOAT64)
    shares = (model.embedding(ids) * model.head.weight[1]).sum(-1) * mask
    assert_close(relevance, shares.detach(), FLOAT64)
