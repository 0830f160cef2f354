"""Where numbers lie in memory says nothing about them: models, examples and photographs in any layout."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relcompile
from tests.compare import FLOAT32, ONNX, assert_close

HWC = (2, 8, 6, 3)


class Inside(nn.Module):
    """Changes the layout in forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.contiguous(memory_format=torch.channels_last))


def network(last: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    pool = last or nn.AdaptiveAvgPool2d(1)
    parts = (
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 1),
        nn.ReLU(),
    )
    return nn.Sequential(*parts, pool, nn.Flatten(), nn.LazyLinear(3)).eval()


def photographs() -> Tensor:
    """As most people have them: (N, H, W, C) in memory."""
    return torch.from_numpy(np.random.default_rng(0).random(HWC, np.float32))


MODELS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "contiguous model": lambda model: model,
    "channels_last model": lambda model: model.to(memory_format=torch.channels_last),
    "changed inside": Inside,
}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.permute(0, 3, 1, 2).contiguous(),
    "transposed": lambda x: torch.from_numpy(np.transpose(x.numpy(), (0, 3, 1, 2))),
    "every second": lambda x: torch.stack([x, x], -1).permute(0, 3, 1, 2, 4)[..., 0],
}
POOLS = [nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(2)]


@cache
def explained(pool: nn.Module) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A network, and the right answer: that of its contiguous twin."""
    plain, x = network(pool), LAYOUTS["contiguous"](photographs())
    with torch.no_grad():
        plain(x)  # the lazy layer learns its size
    return plain, relcompile.compile(plain, x, rule="z+", target=0)(x)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_no_layout_matters(layout: str, kind: str, pool: nn.Module) -> None:
    x = photographs()
    plain, wanted = explained(pool)
    plain = copy.deepcopy(plain)  # a layout is changed in place
    model, example = MODELS[kind](plain), LAYOUTS[layout](x)
    explainer = relcompile.compile(model, example, rule="z+", target=0)
    for given in LAYOUTS.values():
        output, relevance = explainer(given(x))
        assert_close(output, wanted[0], FLOAT32)
        assert_close(relevance, wanted[1], FLOAT32)


def test_an_exported_explainer_takes_any_layout(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    plain, x = network(nn.AvgPool2d(2)), photographs()
    example = LAYOUTS["transposed"](x)
    with torch.no_grad():
        plain(example)  # the lazy layer learns its size
    model = MODELS["channels_last model"](plain)
    explainer = relcompile.compile(model, example, rule="z+", target=0)
    explainer.save(tmp_path / "explainer.onnx")
    production = relcompile.load(tmp_path / "explainer.onnx", device="cpu")
    wanted = explainer(example)
    for given in LAYOUTS.values():
        explanation = production.explain(given(x).numpy())
        assert_close(explanation.relevance, wanted[1], ONNX)
