"""Small random networks as step lists: one of each shape that a relevance rule has to survive."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.oracles.local import Pool
from tests.oracles.network import Activation, Add, Affine, Concat, Flatten, MaxPool, Op, Step


class Function(nn.Module):
    """A model without weights."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Net(NamedTuple):
    """A step list and the shape of one input sample."""

    steps: tuple[Step, ...]
    input_shape: tuple[int, ...]

    def batch(self, n: int, seed: int) -> Tensor:
        """N standard normal samples in float64."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n, *self.input_shape, generator=generator, dtype=torch.float64)


class Weights:
    """Random float64 weights in the order they are asked for."""

    def __init__(self, seed: int, bias: bool) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.bias = bias

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def parameters(self, outputs: int, *shape: int) -> dict[str, Tensor]:
        fan_in = torch.Size(shape[1:]).numel()
        parameters = {"weight": self.draw(*shape) * (2.0 / fan_in) ** 0.5}
        return {**parameters, "bias": self.draw(outputs) * 0.2} if self.bias else parameters

    def linear(self, inputs: int, outputs: int) -> Affine:
        return Affine(functional.linear, self.parameters(outputs, outputs, inputs))

    def conv(self, inputs: int, outputs: int, kernel: int, groups: int = 1, **settings: int) -> Affine:
        parameters = self.parameters(outputs, outputs, inputs // groups, kernel, kernel)
        return Affine(partial(functional.conv2d, groups=groups, **settings), parameters)

    def conv_transpose(self, inputs: int, outputs: int, kernel: int, **settings: int) -> Affine:
        parameters = self.parameters(outputs, inputs, outputs, kernel, kernel)
        return Affine(partial(functional.conv_transpose2d, **settings), parameters)

    def batch_norm(self, channels: int) -> Affine:
        parameters = {
            "running_mean": self.draw(channels) * 0.2,
            "running_var": self.draw(channels).abs() + 0.5,
            "weight": self.draw(channels),  # of either sign
            "bias": self.draw(channels) * 0.2,
        }
        return Affine(partial(functional.batch_norm, training=False), parameters, kind="batch_norm")


def average(kernel: int, **settings: int) -> Affine:
    """Average pooling, padding counted as zeros."""
    return Affine(partial(functional.avg_pool2d, kernel_size=kernel, **settings), kind="average")


def global_average(x: Tensor) -> Tensor:
    """Mean over height and width: (N, C, H, W) -> (N, C)."""
    return x.mean(dim=(2, 3))


def relu() -> Activation:
    """A ReLU."""
    return Activation(functional.relu)


def chain(*ops: tuple[str, Op]) -> tuple[Step, ...]:
    """Steps in a row: each reads the one before, the first reads "input"."""
    names = ["input", *(name for name, _ in ops)]
    return tuple(Step(name, op, (before,)) for before, (name, op) in zip(names, ops, strict=False))


def mlp(w: Weights) -> Net:
    """Two dense layers."""
    return Net(chain(("fc1", w.linear(6, 8)), ("relu1", relu()), ("fc2", w.linear(8, 4))), (6,))


def cnn(w: Weights) -> Net:
    """Conv, max pool, strided, dilated and grouped convs, dense."""
    return Net(
        chain(
            ("conv1", w.conv(2, 4, 3, padding=1)),
            ("relu1", relu()),
            ("pool1", MaxPool(Pool((2, 2), (2, 2)))),
            ("conv2", w.conv(4, 4, 3, groups=2, padding=2, dilation=2)),
            ("relu2", relu()),
            ("conv3", w.conv(4, 3, 2, stride=2)),
            ("relu3", relu()),
            ("flat", Flatten()),
            ("fc", w.linear(12, 3)),
        ),
        (2, 8, 8),
    )


def residual(w: Weights) -> Net:
    """A ResNet in small: overlapping padded max pool, identity block, projection block, average."""
    stem = chain(
        ("stem", w.conv(2, 4, 3, padding=1)),
        ("stem_relu", relu()),
        ("pool", MaxPool(Pool((3, 3), (2, 2), (1, 1)))),
    )
    return Net(
        (
            *stem,
            Step("a1", w.conv(4, 4, 3, padding=1), ("pool",)),
            Step("a1_relu", relu(), ("a1",)),
            Step("a2", w.conv(4, 4, 3, padding=1), ("a1_relu",)),
            Step("a_sum", Add(), ("a2", "pool")),
            Step("a_relu", relu(), ("a_sum",)),
            Step("b1", w.conv(4, 6, 3, stride=2, padding=1), ("a_relu",)),
            Step("b1_relu", relu(), ("b1",)),
            Step("b2", w.conv(6, 6, 3, padding=1), ("b1_relu",)),
            Step("b_skip", w.conv(4, 6, 1, stride=2), ("a_relu",)),
            Step("b_sum", Add(), ("b2", "b_skip")),
            Step("b_relu", relu(), ("b_sum",)),
            Step("mean", Affine(global_average, kind="average"), ("b_relu",)),
            Step("fc", w.linear(6, 3), ("mean",)),
        ),
        (2, 8, 8),
    )


def normalised(w: Weights) -> Net:
    """Batch norm after and before a conv, activations other than ReLU; biased whatever is asked for."""
    return Net(
        chain(
            ("bn1", w.batch_norm(2)),
            ("conv1", w.conv(2, 4, 3)),
            ("bn2", w.batch_norm(4)),
            ("sigmoid", Activation(torch.sigmoid)),
            ("conv2", w.conv(4, 3, 3)),
            ("gelu", Activation(functional.gelu)),
            ("flat", Flatten()),
            ("fc", w.linear(12, 3)),
        ),
        (2, 6, 6),
    )


def branches(w: Weights) -> Net:
    """Inception in small: three branches that read one value, concatenated, average pool, transposed conv."""
    return Net(
        (
            Step("b1", w.conv(2, 3, 1), ("input",)),
            Step("b1_relu", relu(), ("b1",)),
            Step("b2", w.conv(2, 2, 3, padding=1), ("input",)),
            Step("b2_relu", relu(), ("b2",)),
            Step("b3", MaxPool(Pool((3, 3), (1, 1), (1, 1))), ("input",)),
            Step("cat", Concat(), ("b1_relu", "b2_relu", "b3")),
            Step("avg", average(2), ("cat",)),
            Step("up", w.conv_transpose(7, 2, 3, stride=2, padding=1, output_padding=1), ("avg",)),
            Step("up_relu", relu(), ("up",)),
            Step("flat", Flatten(), ("up_relu",)),
            Step("fc", w.linear(72, 3), ("flat",)),
        ),
        (2, 6, 6),
    )


def shared(w: Weights) -> Net:
    """One dense layer used twice, and a value added to itself."""
    layer = w.linear(5, 5)
    return Net(
        (
            Step("first", layer, ("input",)),
            Step("relu1", relu(), ("first",)),
            Step("twice", Add(), ("relu1", "relu1")),
            Step("second", layer, ("twice",)),
            Step("relu2", relu(), ("second",)),
            Step("three", Add(), ("relu2", "twice", "relu1")),
            Step("fc", w.linear(5, 3), ("three",)),
        ),
        (5,),
    )


NETS: dict[str, Callable[[Weights], Net]] = {
    "mlp": mlp,
    "cnn": cnn,
    "residual": residual,
    "normalised": normalised,
    "branches": branches,
    "shared": shared,
}


@cache
def build(name: str, *, seed: int, bias: bool) -> Net:
    """The network of that name with random weights, affine layers with or without bias; kept."""
    return NETS[name](Weights(seed, bias))
