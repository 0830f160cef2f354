"""A constant that is folded before the export, and one that the exporter folds, had one name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import relcompile
from tests.compare import ONNX, assert_close

SIZE = 4


class Grids(nn.Module):
    """As a YOLO head: a buffer with a new axis, and two integer grids multiplied; `many` of each."""

    def __init__(self, many: int) -> None:
        super().__init__()
        self.many = many
        for k in range(many):
            self.register_buffer(f"anchors_{k}", torch.arange(float(SIZE * SIZE)).reshape(SIZE, SIZE) + k)

    def forward(self, x: Tensor) -> Tensor:
        for k in range(self.many):
            x = x * getattr(self, f"anchors_{k}")[None]
            x = x + torch.arange(SIZE)[None] * torch.arange(SIZE)[:, None]
        return x.flatten(1)


@pytest.mark.parametrize("many", [1, 3])
def test_grids_and_buffers_are_exported(many: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    x = torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    explainer = relcompile.compile(Grids(many), x, rule="gradient", target=5)
    explainer.save(tmp_path / "grids.onnx")
    found = relcompile.load(tmp_path / "grids.onnx", device="cpu").explain(x.numpy())
    x.requires_grad_()
    (wanted,) = torch.autograd.grad(Grids(many)(x)[:, 5].sum(), x)
    assert_close(found.relevance, wanted, ONNX)
