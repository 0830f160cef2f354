"""The released root learning: equal to autograd layer by layer, to its closed forms, and as inert as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.composites import Composite
from relcompile.rules.released_roots import ReleasedActivation, ReleasedConvolution, ReleasedDense
from tests.compare import assert_close
from tests.oracles import released_roots as oracle

Layer = Callable[[], nn.Module]
CONVOLUTIONS: dict[str, Layer] = {
    "plain": lambda: nn.Conv2d(3, 5, 3),
    "stride, padding": lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1),
    "groups": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
}


@dataclass(frozen=True)
class LayerCase:
    """One layer under one rule; `signed`: its input has both signs."""

    layer: Layer
    rule: Any
    expected: Callable[[Any, Tensor, Tensor], Tensor]
    shape: tuple[int, ...]
    signed: bool = True


def of_dense(version: Any, signed: bool) -> LayerCase:
    layer = partial(nn.Linear, 20, 9)
    return LayerCase(
        layer, ReleasedDense(version, closed_form=False), partial(oracle.dense, version=version), (20,), signed
    )


def of_convolution(version: Any, name: str, signed: bool) -> LayerCase:
    channels = 4 if name == "groups" else 3
    expected = partial(oracle.convolution, version=version)
    return LayerCase(
        CONVOLUTIONS[name], ReleasedConvolution(version, closed_form=False), expected, (channels, 8, 7), signed
    )


def of_first(version: Any) -> LayerCase:
    rule, expected = (
        ReleasedConvolution(version, closed_form=False, ones=True),
        partial(oracle.first_convolution, version=version),
    )
    return LayerCase(CONVOLUTIONS["plain"], rule, expected, (3, 8, 7))


LAYERS: dict[str, LayerCase] = {
    **{f"dense {v}, {'signed' if s else 'positive'}": of_dense(v, s) for v in (1, 2, 3) for s in (True, False)},
    **{f"convolution {v}, {name}": of_convolution(v, name, v != 2) for v in (1, 2, 3) for name in CONVOLUTIONS},
    "convolution 2, signed": of_convolution(2, "plain", True),
    **{f"first convolution {v}": of_first(v) for v in (1, 2, 3)},
    "relu": LayerCase(nn.ReLU, ReleasedActivation(closed_form=False), oracle.activation, (30,)),
    "gelu": LayerCase(nn.GELU, ReleasedActivation(closed_form=False), oracle.activation, (30,)),
    "silu": LayerCase(nn.SiLU, ReleasedActivation(closed_form=False), oracle.activation, (30,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_autograd(name: str) -> None:
    case = LAYERS[name]
    torch.manual_seed(1)
    layer = case.layer().double()
    x = torch.randn(2, *case.shape, dtype=torch.float64) * 2
    x = x if case.signed else x.clamp(min=0)
    R = torch.rand_like(layer(x)).detach()
    explainer = relcompile.compile(layer, x, rule=Composite("released", fallback=case.rule), target="seed")
    assert_close(explainer(x, R)[1], case.expected(layer, x, R), 1e-9)


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 36, 32),
        nn.ReLU(),
        nn.Linear(32, 5),
    )


class Block(nn.Module):
    """A residual block with batch norms."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


def resnet() -> nn.Module:
    stem = (nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    return nn.Sequential(*stem, Block(8, 8, 1), Block(8, 16, 2), *head)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"vgg": vgg, "resnet": resnet}


def built(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    network = NETWORKS[name]().to(dtype).eval()
    return network, torch.randn(8, 3, 24, 24, dtype=dtype)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_batch_does_not_matter(name: str, version: int) -> None:
    network, x = built(name, torch.float64)
    explainer = relcompile.compile(network, x, rule=f"root-v{version}", target=1)
    alone = torch.cat([explainer(x[n : n + 1])[1] for n in range(3)])
    assert_close(explainer(x)[1][:3], alone, 1e-9)
