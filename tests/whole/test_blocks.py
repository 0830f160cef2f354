"""Blocks of published networks that were refused, or failed, once: the rule `gradient` is autograd's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relcompile
from tests.compare import FLOAT64, assert_close

N, CHANNELS, SIDE, CLASSES = 3, 4, 6, 5


class Block(nn.Module):
    """An image (N, 3, 6, 6) -> features (N, 4, 6, 6) -> `block` -> scores (N, 5)."""

    def __init__(self, block: Callable[[Block, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, CHANNELS, 3, padding=1), block
        self.heads = nn.ModuleList(nn.Linear(CHANNELS, CLASSES) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self, self.stem(x).sigmoid())


def heads_stacked_before_the_batch(self: Block, x: Tensor) -> Tensor:
    """CrossViT and EfficientViM average over heads on an axis before that of the batch."""
    return torch.stack([head(x.mean((2, 3))) for head in self.heads]).mean(0)


@pytest.mark.parametrize("block", [heads_stacked_before_the_batch])
def test_gradient_is_autograd(block: Callable[[Block, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Block(block).double().eval()
    x, target = torch.randn(N, 3, SIDE, SIDE).double().requires_grad_(), torch.tensor([1, 4, 0])
    (expected,) = torch.autograd.grad(model(x)[torch.arange(N), target].sum(), x)
    explainer = relcompile.compile(model, x.detach()[:2], rule="gradient")
    assert_close(explainer(x.detach(), target)[1], expected, FLOAT64)
