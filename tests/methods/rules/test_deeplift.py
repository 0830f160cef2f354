"""DeepLIFT equals its oracle, sums to the difference from the reference, and survives the ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.backend.onnx_file import lowered, save
from relcompile.methods.composites import Composite
from relcompile.methods.presets.deeplift import deeplift
from relcompile.methods.rules.deeplift import Rescale, RevealCancel
from relcompile.methods.rules.differences import AffineDifference, MaxDifference
from tests.compare import FLOAT64, ONNX, assert_close, assert_conserved
from tests.kernels import assert_cuda_kernels
from tests.methods.rules.cases import network
from tests.oracles import deeplift as oracle
from tests.oracles import nets
from tests.oracles.nets import NETS, Net
from tests.oracles.network import Flatten, as_module, forward

TARGET = torch.tensor([0, 2, 1])
SHIFT = 1e-6  # RevealCancel moves contributions below 0.5e-7 by 1e-7: it is complete only this far
# Batch norms are merged before the weights are cut, and those of this network have negative scales.
MERGED = "normalised"
CUT_NETS = tuple(name for name in NETS if name != MERGED)


@dataclass(frozen=True)
class Case:
    """A method, and what the oracle calls it."""

    rule: str | Composite
    nonlinearity: Any
    variant: Any = "full"
    maxima: Any = "crossed"
    nets: tuple[str, ...] = tuple(NETS)

    def expected(self, net: Net, x: Tensor, reference: Tensor, target: Tensor) -> Tensor:
        return oracle.attribute(
            net.steps, x, reference, target, rule=self.nonlinearity, variant=self.variant, maxima=self.maxima
        )["input"]


def as_the_library(activations: Any, cross_terms: Any = "kept") -> Composite:
    """Max pools as in the deeplift library."""
    return deeplift("library", activations, AffineDifference(cross_terms), MaxDifference("gradient"))


CASES = {
    "rescale": Case("deeplift-rescale", "rescale"),
    "rescale, library": Case(as_the_library(Rescale()), "rescale", maxima="gradient"),
    "reveal-cancel": Case("deeplift-revealcancel", "reveal_cancel"),
    "reveal-cancel, library": Case(as_the_library(RevealCancel()), "reveal_cancel", maxima="gradient"),
    "ablation": Case("deeplift-ablation", "rescale", "ablation_code", nets=CUT_NETS),
    "ablation, text": Case("deeplift-ablation-text", "rescale", "ablation_text", nets=CUT_NETS),
    "ablation, library": Case(
        as_the_library(Rescale(), "cut"), "rescale", "ablation_code", maxima="gradient", nets=CUT_NETS
    ),
    "reveal-cancel, cut": Case(
        as_the_library(RevealCancel(), "cut"), "reveal_cancel", "ablation_code", maxima="gradient", nets=CUT_NETS
    ),
}
ON_NETS = [(name, net) for name, case in CASES.items() for net in case.nets]


def samples(net: Net) -> tuple[Tensor, Tensor]:
    """Inputs and references; some differences are exactly 0."""
    x, reference = net.batch(3, seed=2), net.batch(3, seed=5)
    x[0, 0] = reference[0, 0]
    return x, reference


def score_difference(model: Callable[[Tensor], Tensor], x: Tensor, reference: Tensor, target: Tensor) -> Tensor:
    rows = torch.arange(len(x))
    with torch.no_grad():
        return model(x)[rows, target] - model(reference.expand_as(x))[rows, target]


@cache
def captured(net: Net) -> relcompile.CapturedModel:
    return relcompile.capture(as_module(net.steps), samples(net)[0])


@pytest.mark.parametrize(("name", "net_name"), ON_NETS)
def test_equals_its_oracle(name: str, net_name: str) -> None:
    case, net = CASES[name], network(net_name, bias=True)
    x, reference = samples(net)
    explainer = captured(net).compile(rule=case.rule, reference="input")
    output, relevance = explainer(x, TARGET, reference)
    expected = case.expected(net, x, reference, TARGET)
    assert_close(output, forward(net.steps, x)[net.steps[-1].name], FLOAT64)
    assert_close(relevance, expected, FLOAT64)
    assert_close(lowered(explainer.graph_module)(x, TARGET, reference)[1], expected, FLOAT64)


def dense_after_convolutions(w: nets.Weights) -> Net:
    """Activations behind a pool and a flatten, and two dense layers with one in between."""
    return Net(
        nets.chain(
            ("conv", w.conv(2, 4, 3)),
            ("conv_relu", nets.relu()),
            ("average", nets.average(2)),
            ("late_relu", nets.Activation(torch.tanh)),
            ("flat", Flatten()),
            ("fc1", w.linear(16, 6)),
            ("fc_relu", nets.relu()),
            ("fc2", w.linear(6, 3)),
        ),
        (2, 6, 6),
    )


def test_genomics_default_equals_its_oracle() -> None:
    net = dense_after_convolutions(nets.Weights(3, bias=True))
    x, reference = samples(net)
    explainer = captured(net).compile(rule="deeplift-genomics", reference="input")
    rules: dict[str, Any] = {"conv_relu": "rescale", "late_relu": "rescale", "fc_relu": "reveal_cancel"}
    expected = oracle.attribute(net.steps, x, reference, TARGET, rule=rules, variant="full")["input"]
    assert_close(explainer(x, TARGET, reference)[1], expected, FLOAT64)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("net_name", ["residual", "shared"])
def test_constant_reference_equals_its_oracle(name: str, net_name: str) -> None:
    case, net = CASES[name], network(net_name, bias=True)
    x, reference = samples(net)
    explainer = captured(net).compile(rule=case.rule, reference=reference[0])
    expected = case.expected(net, x, reference[:1].expand_as(x), TARGET)
    assert_close(explainer(x, TARGET)[1], expected, FLOAT64)
    assert_close(lowered(explainer.graph_module)(x, TARGET)[1], expected, FLOAT64)
    assert_close(explainer(x[1:2], TARGET[1:2])[1], expected[1:2], FLOAT64)


@pytest.mark.parametrize(("rule", "tolerance"), [("deeplift-rescale", FLOAT64), ("deeplift-revealcancel", SHIFT)])
@pytest.mark.parametrize("net_name", NETS)
def test_sums_to_the_difference_from_the_reference(net_name: str, rule: str, tolerance: float) -> None:
    net = network(net_name, bias=True)
    x, reference = samples(net)
    model = as_module(net.steps)
    relevance = relcompile.compile(model, x, rule=rule, reference="input")(x, TARGET, reference)[1]
    assert_conserved(relevance, score_difference(model, x, reference, TARGET), tolerance)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("reference", [0, 0.25, (0.5, -0.5), "input"], ids=str)
@pytest.mark.parametrize("name", ["rescale", "reveal-cancel", "ablation"])
def test_one_file_for_every_batch(name: str, reference: Any, tmp_path: Path) -> None:
    net = network("residual", bias=True)
    x = net.batch(2, seed=2).float()
    model = as_module(net.steps).float()
    explainer = relcompile.compile(model, x, rule=CASES[name].rule, reference=reference)
    save(explainer, tmp_path / "explainer.onnx")
    assert_cuda_kernels(tmp_path / "explainer.onnx")
    production = relcompile.load(tmp_path / "explainer.onnx", device="cpu")
    for batch in (1, 2, 5):
        x, target = net.batch(batch, seed=batch).float(), torch.arange(batch) % 3
        given = (net.batch(batch, seed=9).float(),) if reference == "input" else ()
        output, relevance = explainer(x, target, *given)
        keywords: dict[str, Any] = {"reference": given[0].numpy()} if given else {}
        found = production.explain(x.numpy(), target=target.numpy(), **keywords)
        assert_close(found.output, output.numpy(), ONNX)
        assert_close(found.relevance, relevance.numpy(), ONNX)


def test_runtime_folds_a_constant_reference(tmp_path: Path) -> None:
    """The file holds every convolution of the network twice, what ONNX Runtime makes of it once."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten()]
    model, x = nn.Sequential(*layers, nn.LazyLinear(5)), torch.randn(2, 3, 64, 64)
    model(x)
    counts = dict[str, list[int]]()
    for rule, reference in {"deeplift-rescale": 0.5, "gradient*input": None}.items():
        path, optimised = tmp_path / "explainer.onnx", tmp_path / "optimised.onnx"
        save(relcompile.compile(model, x, rule=rule, reference=reference), path)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimised)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        files = [onnx.load(file) for file in (path, optimised)]
        counts[rule] = [sum(node.op_type in ("Conv", "MaxPool") for node in file.graph.node) for file in files]
        weights = sum(tensor.numel() * 4 for tensor in model.state_dict().values())
        assert path.stat().st_size < weights + 2**17
    (written, left), (plain, _) = counts["deeplift-rescale"], counts["gradient*input"]
    assert written >= left + 3  # two convolutions and a pool, at the reference
    assert left == plain


@pytest.mark.sampled(2)
@pytest.mark.slow
@pytest.mark.parametrize("rule", ["deeplift-rescale", "deeplift-revealcancel"])
def test_resnet_with_batch_norm_is_complete(rule: str, network, tmp_path: Path) -> None:
    model, target = network("resnet18"), torch.tensor([1, 3])
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = score_difference(model, x, torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64), target)
    explainer = relcompile.compile(model, x, rule=rule, reference=0.3)
    assert_conserved(explainer(x, target)[1], expected, FLOAT64 if rule == "deeplift-rescale" else SHIFT)
    single = relcompile.compile(model.float(), x.float(), rule=rule, reference=0.3)
    assert_conserved(single(x.float(), target)[1], expected, 1e-4)
