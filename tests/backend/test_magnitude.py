"""A model whose numbers come near the end of float32 is told at compile time that some maps may be NaN."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import relcompile
from relcompile.backend.magnitude import SUSPICIOUS, nearest_to_overflow


def scaled(scale: float) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


# Scale of the weights; whether every map of 64 samples is finite.
SCALES = {"plain": (1.0, True), "large": (1e3, True), "too large": (1e12, False)}


@pytest.mark.parametrize("name", SCALES)
def test_what_may_overflow_is_known_from_two_samples(name: str) -> None:
    scale, finite = SCALES[name]
    explainer = relcompile.compile(scaled(scale), torch.randn(2, 4), rule="z+")
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    assert bool(explainer(x, torch.zeros(64, dtype=torch.int64))[1].isfinite().all()) is finite
    assert (nearest_to_overflow(explainer) <= SUSPICIOUS) is finite


def test_a_value_of_known_size() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1e19)
    explainer = relcompile.compile(model, torch.tensor([[1e19]]), rule="gradient", target=0)
    assert nearest_to_overflow(explainer) == pytest.approx(1e38 / torch.finfo(torch.float32).max)
