"""A graph that is fed with weights computes what the graph compiled for these weights computes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.errors import EvaluationError
from relcompile.evaluation.fed import Architecture, Fed, generic
from relcompile.evaluation.randomised import cascade, layers_with_weights, randomise
from relcompile.methods.presets import PRESETS
from relcompile.question.options import Options
from tests.compare import FLOAT64, assert_close
from tests.evaluation.networks import BatchNormed, small_cnn

X = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGET = torch.tensor([0, 3, 4])
NETWORKS: dict[str, Callable[[], nn.Module]] = {"plain": small_cnn, "batch norm": BatchNormed}
ALL = [name for name, preset in PRESETS.items() if "calibration" not in preset.needs and "unrolled" not in name]
SAMPLE = [("gamma", "batch norm"), ("deeplift-rescale", "batch norm"), ("smoothgrad", "plain")]


def options(rule: str) -> Options:
    return Options(rule=rule, bounds=(-4.0, 4.0) if "bounds" in PRESETS[rule].needs else None)


def fresh(network: nn.Module) -> nn.Module:
    return randomise(network, layers_with_weights(network), 3)


def agree(network: nn.Module, rule: str, others: list[nn.Module]) -> None:
    fed = Fed(Architecture(network, X), options(rule))
    for other in others:
        compiled = relcompile.compile(other, X, rule=rule, bounds=options(rule).bounds)
        noise = [torch.randn(3, *r.shape[1:], generator=torch.Generator().manual_seed(0)) for r in fed.metadata.noise]  # type: ignore[arg-type]
        with torch.no_grad():
            expected = compiled(X, TARGET, *(n.double() for n in noise))
        for found, wanted in zip(fed.explain(fed.architecture.weights(other), X, TARGET), expected, strict=True):
            assert_close(found, wanted, FLOAT64)


class Tied(nn.Module):
    """One convolution in two places, a buffer that no file holds, a constant that is nobody's."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = self.again = nn.Conv2d(3, 3, 3, padding=1)
        self.register_buffer("scale", torch.rand(3, 1, 1), persistent=False)
        self.weights = torch.tensor([[1.0, -1], [2, 1], [0, 3]])

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.again(torch.relu(self.conv(x)))) * self.get_buffer("scale")
        return y.mean((2, 3)) @ self.weights.to(x.dtype)


def test_tied_weights_and_hidden_buffers_are_fed() -> None:
    model, other = Tied().double().eval(), Tied(1).double().eval()
    architecture = Architecture(model, X)
    compiled = relcompile.compile(other, X, rule="epsilon")
    target = torch.tensor([0, 1, 1])
    found = Fed(architecture, options("epsilon")).explain(architecture.weights(other), X, target)
    with torch.no_grad():
        for ours, wanted in zip(found, compiled(X, target), strict=True):
            assert_close(ours, wanted, FLOAT64)


@pytest.mark.parametrize(("rule", "name"), SAMPLE)
def test_equals_the_compiled_one(rule: str, name: str) -> None:
    """Of an untrained network: its weights are equal, and zero, wherever they can be."""
    network = NETWORKS[name]().double()
    agree(network, rule, [fresh(network)])


@pytest.mark.heavy
@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("rule", ALL)
def test_every_rule_equals_the_compiled_one(network: str, rule: str) -> None:
    model = NETWORKS[network]().double()
    agree(model, rule, [model, generic(model, 7), fresh(model)])


def test_a_graph_compiled_for_special_weights_is_wrong_for_others() -> None:
    """Why the graph is compiled for random weights: equal tensors (of fresh batch norms) are shared in it."""
    network = BatchNormed().double()
    compiled = relcompile.compile(fresh(network), X, rule="gamma").graph_module
    architecture = Architecture(network, X)
    weights = architecture.weights(network)
    fed = Fed(architecture, options("gamma")).explain(weights, X, TARGET)
    tensors = {name: weights.tensors.get(name, tensor) for name, tensor in compiled.named_buffers()}
    with torch.no_grad():
        wrong = torch.func.functional_call(compiled, tensors, (X, TARGET))
    assert_close(wrong[0], fed[0], FLOAT64)
    assert (wrong[1] - fed[1]).abs().max() > 0.01 * fed[1].abs().max()


OTHERS = {"another shape": small_cnn(classes=4), "other names": BatchNormed()}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_weights_of_another_architecture_are_refused(other: nn.Module) -> None:
    architecture, x = Architecture(small_cnn(), X.float()), X.float()
    with pytest.raises(EvaluationError, match="another architecture"):
        architecture.weights(other)
    with pytest.raises(EvaluationError, match="another architecture"):
        Fed(architecture, options("z+")).explain(Architecture(other, x).weights(other), x, TARGET)


def test_the_network_itself_is_left_alone() -> None:
    network = small_cnn()
    before = copy.deepcopy(network.state_dict())
    generic(network)
    list(cascade(network, 3, 0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_cascade_goes_from_the_top_down() -> None:
    network = small_cnn()
    steps = list(cascade(network, 10, 0))
    assert [layer for layer, _ in steps] == ["8", "6", "3", "0"]
    for layer, changed in steps:
        for name, module in network.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor):
                same = torch.equal(weight, changed.get_submodule(name).get_parameter("weight"))
                assert same == (int(name) < int(layer))
    assert [layer for layer, _ in cascade(network, 2, 0)] == ["8", "0"]


def test_random_layers_are_as_fresh_ones() -> None:
    made = randomise(BatchNormed(), ["conv1", "bn1", "fc"], 0)
    limit = (6 / (6 * 9 + 3 * 9)) ** 0.5
    weight = made.get_parameter("conv1.weight")
    assert 0.9 * limit < weight.abs().max() <= limit
    assert not made.get_parameter("fc.bias").any()
    assert made.get_parameter("bn1.weight").eq(1).all()
    assert made.get_buffer("bn1.running_var").eq(1).all()
    assert not made.get_buffer("bn1.running_mean").any()
    assert made.get_parameter("bn2.weight").eq(1).all()
    assert made.get_buffer("bn2.running_mean").any()


FANS = {
    "dense": (nn.Linear(30, 20), 30 + 20),
    "convolution": (nn.Conv2d(8, 4, 3), (8 + 4) * 9),
    "two groups": (nn.Conv2d(8, 4, 3, groups=2), (4 + 2) * 9),
    "depthwise": (nn.Conv2d(12, 12, 3, groups=12), (1 + 1) * 9),
    "transposed, two groups": (nn.ConvTranspose2d(8, 4, 3, groups=2), (4 + 2) * 9),
}


@pytest.mark.parametrize(("layer", "fans"), FANS.values(), ids=FANS)
def test_random_kernels_are_as_large_as_values_stay(layer: nn.Module, fans: int) -> None:
    """Uniform up to √(6 / (fan-in + fan-out)), of units that are connected."""
    weight = randomise(nn.Sequential(layer), ["0"], 0).get_parameter("0.weight")
    limit = (6 / fans) ** 0.5
    assert 0.9 * limit < weight.abs().max() <= limit
