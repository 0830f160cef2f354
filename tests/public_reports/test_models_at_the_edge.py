"""Models that predict NaN, do nothing or overflow, and complex references: relcompile was said to be at fault."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import relcompile
from relcompile.backend.magnitude import SUSPICIOUS, nearest_to_overflow
from relcompile.errors import InputSpecError
from tests.compare import FLOAT32, assert_close

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Linear):
    """Scores that are multiplied by what makes them infinite, or no numbers."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * self.factor

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__(4, 3)
        self.factor = factor


DIFFERENCES = {"rule": "deeplift-rescale"}
EDGES: dict[str, tuple[float, dict[str, Any], str]] = {
    "infinite": (torch.inf, {}, "itself predicts NaN or infinity"),
    "not a number": (torch.nan, {}, "itself predicts NaN"),
    "complex": (1.0, {**DIFFERENCES, "reference": 1j}, "is complex"),
    "complex tensor": (1.0, {**DIFFERENCES, "reference": torch.zeros(4, dtype=torch.complex64)}, "is complex"),
}


@pytest.mark.parametrize("name", EDGES)
def test_it_is_the_model_or_the_reference_that_is_named(name: str) -> None:
    factor, keywords, message = EDGES[name]
    with pytest.raises(InputSpecError, match=message):
        relcompile.compile(Scaled(factor), X, **keywords)


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


@pytest.mark.parametrize("model", [nn.Identity(), nn.Sequential()], ids=["identity", "empty"])
def test_a_model_without_operators(model: nn.Module) -> None:
    """R = x at the target and 0 elsewhere, in every library and by hand."""
    x = X[:, :3]
    _, relevance = relcompile.compile(model, x, rule="epsilon")(x, torch.tensor([2, 0]))
    assert_close(relevance, x * torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), FLOAT32)
