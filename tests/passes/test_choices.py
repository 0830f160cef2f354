"""Choices between two values become sums of products, or stay as they are; the numbers are the same, at kinks too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from passes.graphs.emitter import aten
from passes.graphs.graph import calls
from passes.rewrites.lower_adjoints import LowerAdjoints
from relcompile.frontend.capture import capture
from tests.compare import FLOAT32, assert_close
from tests.passes.test_passes import Function

Choice: TypeAlias = Callable[[Tensor], Tensor]
LEFT, RIGHT = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
AT: Final = torch.tensor([[0.0, -0.0, 5e-324, -5e-324, 1e-6], [-1e-6, 1.0, -1.0, 3.0, -3.0]], dtype=torch.float64)


def of_each_sample(x: Tensor) -> Tensor:
    level = x.abs().mean([1], keepdim=True) * 1e-6
    return torch.where(x >= 0, x + level, x - level)


LOWERED: dict[str, Choice] = {
    "stabilised": lambda x: torch.where(x >= 0, x + 1e-6, x - 1e-6),
    "stabilised, sample by sample": of_each_sample,
    "two linear maps": lambda x: torch.where(
        x > 0, functional.linear(x, LEFT.to(x.dtype)), functional.linear(x, RIGHT.to(x.dtype))
    ),
}
LEFT_ALONE: dict[str, Choice] = {
    "hides what is not finite": lambda x: torch.where(x > 0, x.abs().log(), x),
    "another stabiliser": lambda x: torch.where(x > 0, x + 1e-6, x - 1e-6),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", LOWERED)
def test_choices_become_sums(name: str, dtype: torch.dtype) -> None:
    x = AT.to(dtype)
    graph = capture(Function(LOWERED[name]).eval(), {"x": x}).module
    assert LowerAdjoints().apply(graph) > 0
    assert not calls(graph, aten.where.self)
    assert torch.equal(graph(x)[0], LOWERED[name](x))


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_other_choices_stay(name: str) -> None:
    graph = capture(Function(LEFT_ALONE[name]).eval(), {"x": AT}).module
    assert LowerAdjoints().apply(graph) == 0
    assert torch.equal(graph(AT)[0], LEFT_ALONE[name](AT))


class Kinked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        parts = (
            functional.relu6(x),
            2 * x.clamp(-3, 3),
            4 * functional.hardswish(x),
            8 * functional.leaky_relu(x, 0.1),
            16 * functional.elu(x, 0.5),
            32 * functional.relu(x),
            64 * functional.hardtanh(x, -1, 6),
        )
        return torch.stack(parts).sum([0, 2]).unsqueeze(1)


def test_the_file_has_the_derivative_of_torch_at_kinks(tmp_path: Path) -> None:
    at = torch.tensor([-3.0, -1.0, 0.0, 3.0, 6.0])
    ends = [torch.nextafter(at, torch.full_like(at, end)) for end in (-torch.inf, torch.inf)]
    x = torch.stack([at, *ends]).requires_grad_()
    relcompile.compile(Kinked(), x.detach(), rule="gradient").save(tmp_path / "kinked.onnx")
    found = relcompile.load(tmp_path / "kinked.onnx").explain(x.detach().numpy(), target=0)
    assert_close(found.relevance, torch.autograd.grad(Kinked()(x).sum(), x)[0], FLOAT32)
