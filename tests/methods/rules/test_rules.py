"""Every rule equals its oracle, conserves what it says, and survives the ONNX file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

import relcompile
from relcompile.backend.onnx_file import lowered, save
from relcompile.methods.presets import PRESETS
from tests.compare import FLOAT64, ONNX, assert_close, assert_conserved
from tests.kernels import assert_cuda_kernels
from tests.methods.rules.cases import BOUNDS, CASES, GRADIENT_CASES, PLAIN_NETS, RuleCase, network
from tests.oracles.nets import Net
from tests.oracles.network import as_module, explain, forward

ON_NETS = [(name, net) for name, case in CASES.items() for net in case.nets]
TARGET = torch.tensor([0, 2, 1])


@cache
def captured(net: Net, dtype: torch.dtype) -> relcompile.CapturedModel:
    """The same net under every rule is looked at once."""
    return relcompile.capture(as_module(net.steps).to(dtype), net.batch(3, seed=2).to(dtype))


def compiled(rule: RuleCase | str, net: Net, x: torch.Tensor) -> relcompile.Explainer:
    name = rule if isinstance(rule, str) else rule.rule
    preset = PRESETS.get(name.partition("=")[0].partition(",")[0]) if isinstance(name, str) else None
    bounds = BOUNDS if preset is not None and "bounds" in preset.needs else None
    return captured(net, x.dtype).compile(rule=name, bounds=bounds)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(("name", "net_name"), ON_NETS)
def test_rule_equals_its_oracle(name: str, net_name: str, bias: bool) -> None:
    case, net = CASES[name], network(net_name, bias=bias)
    x = net.batch(3, seed=2)
    explainer = compiled(case, net, x)
    output, relevance = explainer(x, TARGET)
    expected = explain(net.steps, x, TARGET, case.rules, start=case.start)["input"].detach()
    assert_close(output, forward(net.steps, x)[net.steps[-1].name].detach(), FLOAT64)
    assert_close(relevance, expected, FLOAT64)
    assert_close(lowered(explainer.graph_module)(x, TARGET)[1], expected, FLOAT64)


@pytest.mark.parametrize("net_name", [*PLAIN_NETS, "normalised"])
@pytest.mark.parametrize("name", GRADIENT_CASES)
def test_gradient_rule_equals_its_oracle(name: str, net_name: str) -> None:
    net = network(net_name, bias=True)
    x = net.batch(3, seed=2)
    explainer = compiled(name, net, x)
    expected = explain(net.steps, x, TARGET, GRADIENT_CASES[name], start="one")["input"].detach()
    wanted = expected * x if name == "gradient*input" else expected
    assert_close(explainer(x, TARGET)[1], wanted, FLOAT64)
    assert_close(lowered(explainer.graph_module)(x, TARGET)[1], wanted, FLOAT64)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.conserves])
def test_rule_conserves_without_bias(name: str) -> None:
    case = CASES[name]
    net = network(case.nets[0], bias=False)
    x = net.batch(3, seed=2)
    explainer = compiled(case, net, x)
    best = explainer(x, TARGET)[0].argmax(1)
    output, relevance = explainer(x, best)
    start = torch.ones(3) if case.start == "one" else output.gather(1, best[:, None])[:, 0]
    assert_conserved(relevance, start, 1e-3)


@pytest.mark.parametrize("name", ["alpha2beta1", "alpha5beta4"])
def test_alpha_beta_conserves(name: str) -> None:
    """Contributions of both signs in every unit."""
    weight = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 3.0, -0.25]], dtype=torch.float64)
    layer = torch.nn.Linear(3, 2, bias=False).double()
    layer.weight.data.copy_(weight)
    x = torch.tensor([[1.0, 2.0, 3.0], [0.5, 1.0, -2.0]], dtype=torch.float64)
    output, relevance = relcompile.compile(layer, x, rule=name)(x, torch.tensor([0, 1]))
    assert_conserved(relevance, output[[0, 1], [0, 1]].detach(), 1e-6)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", [*CASES, *GRADIENT_CASES])
def test_rule_survives_the_onnx_file(name: str, tmp_path: Path) -> None:
    net_name = CASES[name].nets[min(1, len(CASES[name].nets) - 1)] if name in CASES else "cnn"
    net = network(net_name, bias=True)
    x = net.batch(2, seed=2).float()
    explainer = compiled(CASES.get(name, name), net, x)
    save(explainer, tmp_path / "explainer.onnx")
    assert_cuda_kernels(tmp_path / "explainer.onnx")
    production = relcompile.load(tmp_path / "explainer.onnx", device="cpu")
    for batch in (1, 2, 5):
        x = net.batch(batch, seed=batch).float()
        target = torch.arange(batch) % 3
        found = production.explain(x.numpy(), target=target.numpy())
        output, relevance = explainer(x, target)
        assert_close(found.output, output.numpy(), ONNX)
        assert_close(found.relevance, relevance.numpy(), ONNX)
