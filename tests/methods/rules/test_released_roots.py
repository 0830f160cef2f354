"""The released root learning: equal to autograd layer by layer, to its closed forms, and as inert as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from passes.relevance.ledgers import ROOT_QUANTITIES
from relcompile.errors import CompositeError
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.rules.adjoint import Adjoint
from relcompile.methods.rules.roots.released_roots import ReleasedActivation, ReleasedConvolution, ReleasedDense
from relcompile.methods.starts import Magnitude
from tests.compare import ONNX, assert_close, assert_conserved
from tests.kernels import assert_cuda_kernels
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


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_autograd(name: str) -> None:
    case = LAYERS[name]
    torch.manual_seed(1)
    layer = case.layer().double()
    x = torch.randn(2, *case.shape, dtype=torch.float64) * 2
    x = x if case.signed else x.clamp(min=0)
    R = torch.rand_like(layer(x)).detach()
    explainer = relcompile.compile(layer, x, rule=Composite("released", (Entry(case.rule),)), target="seed")
    assert_close(explainer(x, R)[1], case.expected(layer, x, R), 1e-9)


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 36, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )


class Block(nn.Module):
    """A residual block with batch norms."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


def resnet() -> nn.Module:
    stem = (nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*stem, Block(4, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"vgg": vgg, "resnet": resnet}
MILLIONTH = 10**-5.5  # what rounds to 1e-6, in powers of ten
RULES = ("root-v1", "root-v2", "root-v3", "root-v3-unrolled")


def built(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Tensor]:
    torch.manual_seed(3)
    network = NETWORKS[name]().to(dtype).eval()
    return network, torch.randn(8, 3, 12, 12, dtype=dtype)


def report(explainer: relcompile.Explainer, x: Tensor) -> dict[str, Tensor]:
    """The report on roots by layer, (N, quantities) each."""
    record = explainer.metadata.roots
    assert record is not None
    return dict(zip(record.layers, explainer(x)[-1].unbind(1), strict=True))


@pytest.mark.parametrize("rule", ["root-v2", "root-v3-unrolled"])
@pytest.mark.parametrize("name", NETWORKS)
def test_batch_does_not_matter(name: str, rule: str) -> None:
    network, x = built(name, torch.float64)
    explainer = relcompile.compile(network, x, rule=rule, target=1, roots=True)
    _, relevance, roots = explainer(x)
    for n in (0, 7):
        _, alone, roots_alone = explainer(x[n : n + 1])
        assert_close(relevance[n : n + 1], alone, 1e-9)
        assert_close(roots[n : n + 1], roots_alone, 1e-9)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_file_computes_the_same(name: str, rule: str, tmp_path: Path) -> None:
    network, x = built(name)
    explainer = relcompile.compile(network, x[:2], rule=rule, roots=True)
    explainer.save(tmp_path / "explainer.onnx")
    assert_cuda_kernels(tmp_path / "explainer.onnx")
    production = relcompile.load(tmp_path / "explainer.onnx", device="cpu")
    for batch in (1, 5):
        _, relevance, roots = explainer(x[:batch], torch.arange(batch) % 5)
        found = production.explain(x[:batch].numpy(), target=(torch.arange(batch) % 5).numpy())
        assert_close(found.relevance, relevance.numpy(), ONNX)
        assert_close(found.roots, roots.numpy(), ONNX)


def test_relevance_starts_with_the_magnitude_of_the_score() -> None:
    layer = nn.Linear(4, 3, bias=False).double()
    x = torch.tensor([[1.0, 2.0, 0.5, 1.0], [0.1, 1.0, 0.5, 3.0]], dtype=torch.float64)
    composite = Composite("magnitude", (Entry(Adjoint()),), start=Magnitude())
    for k in range(3):
        output, relevance = relcompile.compile(layer, x, rule=composite, target=k)(x)
        assert_close(relevance.sum(1), output[:, k].abs().detach(), 1e-12)


def single(layer: nn.Module, x: Tensor, R: Tensor, rule: Any) -> tuple[Tensor, Tensor]:
    """Relevance and report of one layer."""
    composite = Composite("released", (Entry(rule),))
    _, relevance, roots = relcompile.compile(layer, x, rule=composite, target="seed", roots=True)(x, R)
    return relevance, roots[:, 0]


@pytest.mark.parametrize("total", [1e-3, 1e4], ids=["little relevance", "much relevance"])
@pytest.mark.parametrize(("channels", "size"), [(64, 56), (256, 14)])
def test_search_of_a_convolution_hardly_moves(channels: int, size: int, total: float) -> None:
    """The root is 1e-12 to 1e-6 of x, in powers of ten; the maps differ by root ⊙ W⁺ᵀR, as little."""
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    x = torch.randn(1, channels, size, size).clamp(min=0)
    R = torch.rand(1, channels, size, size)
    R = R / R.sum() * total
    relevance, roots = single(layer, x, R, ReleasedConvolution(3, closed_form=False))
    assert float(roots[0, 0]) < MILLIONTH
    assert_close(relevance, single(layer, x, R, ReleasedConvolution(3))[0], MILLIONTH)


@pytest.mark.parametrize(("he", "drift"), [(False, 0.0156), (True, 0.0354)], ids=["default weights", "He weights"])
def test_search_of_a_dense_layer_moves_by_some_percent(he: bool, drift: float) -> None:
    """About 2 %. All units of these layers answer more than 1, so the root is the mean of W⁺ over units.

    Its size over that of x = max(N(0, 1), 0), whose root mean square is 0.707: 1 / (4 sqrt(512)) / 0.707 = 0.0156 for
    torch's uniform weights, sqrt(2 / 512) / sqrt(2 pi) / 0.707 = 0.0353 for He's normal ones (and their spread).
    """
    torch.manual_seed(0)
    layer = nn.Linear(512, 1000, bias=False)
    if he:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    x, R = torch.randn(64, 512).clamp(min=0), torch.rand(64, 1000)
    relevance, roots = single(layer, x, R, ReleasedDense(3, closed_form=False))
    mean = layer.weight.detach().clamp(min=0).mean(0)
    assert_close(roots[:, 0], mean.norm() / x.norm(dim=1), 1e-5)
    assert abs(float(roots[:, 0].mean()) / drift - 1) < 0.05
    # The closed form keeps that step; z+ would be off by it.
    assert_close(relevance, single(layer, x, R, ReleasedDense(3))[0], 1e-6)
    _, plain = relcompile.compile(layer, x, rule="z+", target="seed")(x, R)
    assert float((relevance - plain).norm() / plain.norm()) > 0.01


@pytest.mark.parametrize("version", [1, 2])
def test_softmaxed_search_of_a_dense_layer_stands_still(version: Any) -> None:
    torch.manual_seed(0)
    layer, x, R = nn.Linear(30, 20), torch.randn(3, 30) * 5, torch.rand(3, 20)
    relevance, roots = single(layer, x, R, ReleasedDense(version, closed_form=False))
    assert not roots[:, 0].any()
    assert_close(relevance, single(layer, x, R, ReleasedDense(version))[0], 1e-6)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.GELU()], ids=["relu", "gelu"])
def test_search_of_an_activation_stands_still(layer: nn.Module) -> None:
    torch.manual_seed(0)
    x, R = torch.randn(3, 40) * 3, torch.rand(3, 40)
    relevance, roots = single(layer, x, R, ReleasedActivation(closed_form=False))
    assert_close(roots[:, 0], (x - 1).norm(dim=1) / x.norm(dim=1), 1e-6)  # the root is x - 1
    assert_close(relevance, single(layer, x, R, ReleasedActivation())[0], 1e-6)


def test_released_vgg_is_backpropagation_through_positive_weights() -> None:
    """Version 3 below the dense layers is [x > 0] ⊙ W⁺ᵀ R, since ReLU's rule divides by x."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(2, 4, 3, padding=1).double(), nn.Conv2d(4, 3, 3, padding=1).double()
    network = nn.Sequential(first, nn.ReLU(), second)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    R = torch.rand_like(network(x)).detach()
    relevance = relcompile.compile(network, x, rule="root-v3", target="seed")(x, R)[1]
    back = functional.conv_transpose2d(R, second.weight.clamp(min=0), padding=1) * (first(x) > 0)
    assert_close(relevance, functional.conv_transpose2d(back, first.weight.clamp(min=0), padding=1).detach(), 1e-6)


def test_version_2_conserves_in_convolutions() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(3, 5, 3).double(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    R = torch.rand_like(layer(x)).detach()
    relevance, roots = single(layer, x, R, ReleasedConvolution(2))
    assert_conserved(relevance, R.sum((1, 2, 3)), 1e-6)
    assert float(roots[:, 4].abs().max()) < 1e-6


def test_report_says_what_it_says() -> None:
    network, x = built("vgg", torch.float64)
    explainer = relcompile.compile(network, x, rule="root-v3-unrolled", target=1, roots=True)
    record = explainer.metadata.roots
    assert record is not None
    assert record.quantities == ROOT_QUANTITIES
    rows = report(explainer, x)
    assert list(rows) == ["0", "1", "3", "4", "6", "7", "8"]
    hidden = network[:7](x).detach()
    # The activation "7": s = 1, so the root is x - 1 and the hinge of relu(1) is 1, before and after.
    expected = torch.stack([(hidden - 1).norm(dim=1) / hidden.norm(dim=1), torch.ones(8), torch.ones(8)], 1)
    assert_close(rows["7"][:, :3], expected, 1e-9)
    response = torch.relu(hidden - 1).norm(dim=1) / torch.relu(hidden).norm(dim=1)
    assert_close(rows["7"][:, 3], response, 1e-9)


def test_only_rules_that_learn_roots_report_them() -> None:
    network, x = built("vgg")
    with pytest.raises(CompositeError, match=r"z\+ learns no roots"):
        relcompile.compile(network, x, rule="z+", roots=True)


def test_activations_of_residual_blocks_pass() -> None:
    network, x = built("resnet")
    layers = relcompile.compile(network, x, rule="root-v3").metadata.layers
    rules = {(layer.name, layer.operator): layer.rule.partition("(")[0] for layer in layers}
    assert rules["2", "relu"] == "ReleasedActivation"
    assert rules["4.relu", "relu"] == "PassThrough"
    assert rules["4", "add.Tensor" if ("4", "add.Tensor") in rules else "add"] == "SplitByShare"
