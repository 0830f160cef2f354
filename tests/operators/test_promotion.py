"""Floating point types that meet in one operator: relevance goes back in the type of the value that it is of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import relcompile
from tests.compare import FLOAT32, ONNX, assert_close


class Mixed(nn.Module):
    """A float32 layer whose output z meets float64 values s in every operator that promotes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 4, 3, padding=1), nn.Linear(6, 6).double()
        self.head, self.constant = nn.Linear(24, 2).double(), nn.Buffer(torch.randn(4, 6, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x).relu()
        s = self.second(z.double())
        joined = torch.cat([z[:, :2], s[:, 2:]], 1) + torch.stack([z, s]).sum(0)
        mixed = (z + self.constant) + (s - z) + z * s + z / (1 + s.abs()) + torch.where(z > 0.2, z, s)
        return self.head((joined + mixed + torch.maximum(z, s) + torch.minimum(s, z)).flatten(1))


@pytest.mark.parametrize("rule", ["gradient", "epsilon"])
def test_types_may_meet(rule: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Mixed(), torch.randn(2, 3, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    explainer = relcompile.compile(model, x.detach(), rule=rule)
    output, relevance = explainer(x.detach(), 1)
    assert (output.dtype, relevance.dtype) == (torch.float64, torch.float32)
    if rule == "gradient":
        assert_close(relevance, gradient, FLOAT32)
    explainer.save(tmp_path / "mixed.onnx")
    found = relcompile.load(tmp_path / "mixed.onnx").explain(x.detach().numpy(), target=1)
    assert_close(found.relevance, relevance, ONNX)
