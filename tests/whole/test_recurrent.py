"""Recurrent networks: relevance of an LSTM is that of Arras' rules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import relcompile
from tests.compare import assert_close
from tests.oracles import lstm

X = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 2, 1])


class Classifier(nn.Module):
    """The scores of the last hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@pytest.mark.parametrize(
    ("rule", "signal"),
    [
        ("attnlrp", 1),
        ("cp-lrp", 1),
        ("lrp-0", 1),
        ("epsilon=1e-12", 1),
        ("lstm=held,epsilon=1e-12", 1),
        ("lstm=half,epsilon=1e-12", 0.5),
    ],
)
def test_what_gates_get(rule: str, signal: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier().double().eval()
    with torch.no_grad():
        hidden, scores = model.lstm(X)[0][:, -1], model(X)
        shares = hidden * model.head.weight[TARGET]  # the score is Σ shares + bias: each its own share of it
        expected = lstm.explain(model.lstm, X, shares, signal)
    output, relevance = relcompile.compile(model, X, rule=rule)(X, TARGET)
    assert_close(output, scores, 1e-10)
    assert_close(relevance, expected, 1e-8)
