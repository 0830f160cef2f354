"""Random graphs of convolutions, pools, sums and concatenations: gradients against autograd, z+ against its ledger.

A graph is a list of steps over values computed before. Every value that nothing reads ends in the head, so nothing
is dead code. An in-place ReLU also changes what later steps read from its source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from relcompile.backend.onnx_file import lowered
from tests.compare import assert_close, assert_conserved
from tests.conftest import randomise

CLASSES = 3
MOST_CHANNELS, LARGEST = 8, 18
BATCHES = (2, 1, 4)
# Same mathematics in float64; random statistics and a few layers leave sums of mixed sign.
TOLERANCE = 1e-9
SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Functional(nn.Module):
    """A call that is no module in the models people write."""

    def __init__(self, function: Callable[..., Tensor], name: str) -> None:
        super().__init__()
        self.function, self.name = function, name

    def forward(self, *values: Tensor) -> Tensor:
        return self.function(*values)

    def extra_repr(self) -> str:
        return self.name


class FunctionalConv(nn.Module):
    """A convolution whose weight is a bare parameter."""

    def __init__(self, inputs: int, outputs: int, padding: int) -> None:
        super().__init__()
        self.weight, self.padding = nn.Parameter(torch.empty(outputs, inputs, 3, 3)), padding

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, padding=self.padding)


@dataclass(frozen=True)
class Step:
    layer: nn.Module
    sources: tuple[int, ...]


class Network(nn.Module):
    """The steps, then the mean over space of every value that is left over, then a dense layer."""

    def __init__(self, steps: list[Step], ends: list[int], channels: int, *, positive: bool, seed: int) -> None:
        super().__init__()
        self.steps, self.ends, self.positive = steps, ends, positive
        self.layers = nn.ModuleList(step.layer for step in steps)  # a shared module occurs twice
        self.head = nn.Linear(channels, CLASSES, bias=not positive)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.apply(self._initialise)
        if positive:  # at least one logit is
            with torch.no_grad():
                self.head.weight[0].abs_()
        self.double().eval()

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.BatchNorm2d):
            randomise(module)
        elif isinstance(getattr(module, "weight", None), Tensor):
            nn.init.kaiming_normal_(module.get_parameter("weight"))
            if self.positive:  # every unit can have a positive contribution
                with torch.no_grad():
                    module.get_parameter("weight")[:, 0].abs_()
            if getattr(module, "bias", None) is not None:
                nn.init.normal_(module.get_parameter("bias"), std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step, layer in zip(self.steps, self.layers, strict=True):
            values.append(layer(*(values[source] for source in step.sources)))
        ends = [functional.relu(values[end]) if self.positive else values[end] for end in self.ends]
        return self.head(torch.cat([end.mean((2, 3)) for end in ends], 1))


class Builder:
    """Draws one step after the other; `positive`: no bias, no batch norm, no sum or average of mixed signs."""

    def __init__(self, draw: Draw, *, positive: bool) -> None:
        self.draw, self.positive = draw, positive
        self.channels, self.size = self.pick([2, 4]), self.pick([6, 7, 8, 9])
        self.shapes = [(self.channels, self.size)]
        self.nonnegative = [positive]  # the input is positive where that matters
        self.made_by: list[str] = ["input"]
        self.read: set[int] = set()
        self.steps: list[Step] = []

    def pick(self, options):
        return self.draw(st.sampled_from(options))

    def build(self) -> Network:
        for _ in range(self.draw(st.integers(4, 7))):
            kinds = ["conv", "conv", "functional conv", "relu", "relu in place", "max pool", "average pool"]
            kinds += ["sum", "sum", "cat", "upsample"] + ([] if self.positive else ["batch norm"])
            if any(made == "conv" for made in self.made_by):
                kinds += ["shared conv"]
            self.add(self.pick(kinds))
        ends = [k for k in range(len(self.shapes)) if k not in self.read]
        return Network(
            self.steps,
            ends,
            sum(self.shapes[end][0] for end in ends),
            positive=self.positive,
            seed=self.draw(st.integers(0, 2**16)),
        )

    def add(self, kind: str) -> None:
        """One step, if the drawn source can take it; otherwise none."""
        source = self.pick(list(range(len(self.shapes)))[::-1][:4])
        channels, size = self.shapes[source]
        if kind == "conv":
            self.append(kind, self.conv(channels, size), source)
        elif kind == "shared conv":
            layer = self.pick([step.layer for step in self.steps if isinstance(step.layer, nn.Conv2d)])
            self.append(kind, layer, self.pick([k for k, shape in enumerate(self.shapes) if fits(layer, *shape)]))
        elif kind == "functional conv" and size >= 3:
            self.append(kind, FunctionalConv(channels, self.pick([2, 4]), self.pick([0, 1])), source)
        elif kind == "relu":
            self.append(kind, Functional(functional.relu, "relu"), source, nonnegative=True)
        elif kind == "relu in place":
            # autograd refuses a change of what another operator has kept, and of a leaf
            if source not in self.read and self.made_by[source] not in ("input", "relu", "relu in place"):
                self.nonnegative[source] = True
                self.append(kind, nn.ReLU(inplace=True), source, nonnegative=True)
        elif kind == "batch norm":
            self.append(kind, nn.BatchNorm2d(channels), source)
        elif kind == "max pool" and size >= 3:
            kernel = self.pick([2, 3])
            layer = nn.MaxPool2d(kernel, self.pick([1, 2]), self.pick([0, 1]), ceil_mode=self.draw(st.booleans()))
            self.append(kind, layer, source, nonnegative=self.nonnegative[source])
        elif kind == "average pool" and size >= 3:
            source = self.rectified(source)
            layer = nn.AvgPool2d(
                self.pick([2, 3]),
                self.pick([1, 2]),
                self.pick([0, 1]),
                ceil_mode=self.draw(st.booleans()),
                count_include_pad=self.draw(st.booleans()),
            )
            self.append(kind, layer, source, nonnegative=self.nonnegative[source])
        elif kind == "sum":
            self.sum(source)
        elif kind == "cat":
            others = [k for k, (c, s) in enumerate(self.shapes) if s == size and c + channels <= MOST_CHANNELS]
            if others:
                other = self.another(source, others)
                both = self.nonnegative[source] and self.nonnegative[other]
                self.append(kind, Functional(concatenate, "cat"), source, other, nonnegative=both)
        elif kind == "upsample" and 2 * size <= LARGEST:
            self.append(kind, Functional(twice, "nearest"), source, nonnegative=self.nonnegative[source])

    def conv(self, channels: int, size: int) -> nn.Conv2d:
        kernel = self.pick([1, 2, 3]) if size >= 3 else 1
        dilation = self.pick([1, 2]) if dilated(kernel, 2) <= size else 1
        groups = self.pick(sorted({1, 2, channels}) if channels % 2 == 0 else [1])
        return nn.Conv2d(
            channels,
            groups * self.pick([1, 2]) if groups > 1 else self.pick([2, 4]),
            kernel,
            stride=self.pick([1, 2]),
            padding=self.pick([0, 1]),
            dilation=dilation,
            groups=groups,
            bias=not self.positive and self.draw(st.booleans()),
        )

    def sum(self, source: int) -> None:
        """A residual block's sum if any other value has the shape; x + x too."""
        other = self.another(source, [k for k, shape in enumerate(self.shapes) if shape == self.shapes[source]])
        source = self.rectified(source)
        other = self.rectified(other)
        self.append("sum", Functional(torch.add, "add"), source, other, nonnegative=self.positive)

    def another(self, source: int, values: list[int]) -> int:
        """One of the values; `source` itself, if it is one of them, not too often."""
        others = [k for k in values if k != source]
        return self.pick([*others, *others, source] if source in values else others)

    def rectified(self, source: int) -> int:
        """The value, or its ReLU where relevance must not become negative."""
        if not self.positive or self.nonnegative[source]:
            return source
        self.append("relu", Functional(functional.relu, "relu"), source, nonnegative=True)
        return len(self.shapes) - 1

    def append(self, kind: str, layer: nn.Module, *sources: int, nonnegative: bool = False) -> None:
        with torch.no_grad():
            made = layer.eval()(*(torch.zeros(1, c, s, s) for c, s in (self.shapes[k] for k in sources)))
        self.steps.append(Step(layer, sources))
        self.shapes.append((made.shape[1], made.shape[2]))
        self.nonnegative.append(nonnegative)
        self.made_by.append(kind)
        self.read.update(sources)


def concatenate(left: Tensor, right: Tensor) -> Tensor:
    return torch.cat([left, right], 1)


def twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def dilated(kernel: int, dilation: int) -> int:
    return dilation * (kernel - 1) + 1


def fits(layer: nn.Conv2d, channels: int, size: int) -> bool:
    return layer.in_channels == channels and dilated(layer.kernel_size[0], layer.dilation[0]) <= size


@st.composite
def networks(draw: Draw, *, positive: bool) -> tuple[Network, Tensor]:
    """A network and four samples for it."""
    builder = Builder(draw, positive=positive)
    network = builder.build()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    x = torch.randn(4, builder.channels, builder.size, builder.size, generator=generator, dtype=torch.float64)
    return network, x.abs() if positive else x


@settings(SHARED, max_examples=15)
@given(networks(positive=False))
def test_gradient(drawn: tuple[Network, Tensor]) -> None:
    network, samples = drawn
    explainer = relcompile.compile(network, samples[:2], rule="gradient")
    forward_only = lowered(explainer.graph_module)
    for batch in BATCHES:
        x, target = samples[:batch].clone().requires_grad_(), torch.arange(batch) % CLASSES
        expected = network(x)
        (gradient,) = torch.autograd.grad(expected.gather(1, target[:, None]).sum(), x)
        output, relevance = explainer(x.detach(), target)
        assert_close(output, expected, TOLERANCE)
        assert_close(relevance, gradient, TOLERANCE)
        assert_close(forward_only(x.detach(), target)[1], relevance, TOLERANCE)


@settings(SHARED, max_examples=10)
@given(networks(positive=True))
def test_z_plus_loses_nothing_and_stays_positive(drawn: tuple[Network, Tensor]) -> None:
    network, samples = drawn
    assume(network(samples).amax(1).min() > 1e-3)
    explainer = relcompile.compile(network, samples[:2], rule="z+", target="argmax", absorbed=True)
    forward_only = lowered(explainer.graph_module)
    for batch in BATCHES:
        x = samples[:batch]
        output, relevance, absorbed = explainer(x)
        logit = output.amax(1)
        assert_close(output, network(x), TOLERANCE)
        assert_conserved(torch.cat([relevance.flatten(1), absorbed], 1), logit, TOLERANCE)
        assert float((relevance / logit[:, None, None, None]).min()) >= -1e-12
        assert_close(forward_only(x)[1], relevance, TOLERANCE)
