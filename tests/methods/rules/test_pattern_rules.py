"""PatternNet and PatternAttribution equal the oracle with any patterns, in PyTorch and in the ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import relcompile
from passes.pipelines import CANONICALIZE
from passes.relevance.assign_rules import AssignRules
from passes.relevance.protocol.rule import AnyRule
from passes.runner import run_passes
from passes.stages import verify_captured
from passes.views.layer import Layer
from relcompile import Calibration
from relcompile.backend.onnx_file import lowered, save
from relcompile.errors import CalibrationError, CompositeError, ExportError
from relcompile.frontend.canonical import weights_digest
from relcompile.frontend.capture import capture
from relcompile.methods.preset import Given
from relcompile.methods.presets import PRESETS, pattern_net
from relcompile.methods.rules.adjoint import Adjoint
from relcompile.methods.spelling import layer_entry, named
from tests.compare import FLOAT64, ONNX, assert_close, assert_conserved
from tests.oracles import affine, local
from tests.oracles.nets import Net, build
from tests.oracles.network import Affine, as_module, explain, forward, matrix

TARGET = torch.tensor([0, 2, 1])
COMMON: dict[str, Any] = {
    "average": affine.gradient,
    "max_pool": local.winner_takes_all,
    "activation": local.by_gradient,
}
NETS = ("mlp", "cnn", "branches", "residual")


def random_patterns(model: nn.Module) -> Calibration:
    generator = torch.Generator().manual_seed(7)
    patterns = {
        name.removesuffix(".weight"): torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        for name, weight in model.named_parameters()
        if name.endswith("weight")
    }
    return Calibration(patterns, weights_digest(model), "relu", 1)


def oracle(net: Net, x: Tensor, rule: str, calibration: Calibration) -> Tensor:
    """The matrix of every affine layer is read off its own function, with another weight in it."""
    rules = {**COMMON, "add": local.copied if rule == "patternnet" else local.uniform}
    values = forward(net.steps, x)
    for step in net.steps:
        if isinstance(step.op, Affine) and step.op.kind == "affine":
            A, W = calibration.patterns[step.name], step.op.parameters["weight"]
            op = Affine(step.op.function, {"weight": A if rule == "patternnet" else W * A})
            rules[step.name] = partial(transposed, matrix(op, tuple(values[step.inputs[0]].shape[1:]))[0])
    return explain(net.steps, x, TARGET, rules, start="logit")["input"]


def transposed(M: Tensor, x: Tensor, W: Tensor, b: Tensor, R: Tensor) -> Tensor:
    return R @ M


@pytest.mark.parametrize("net_name", NETS)
@pytest.mark.parametrize("rule", ["patternnet", "patternattribution"])
def test_rule_equals_its_oracle(rule: str, net_name: str) -> None:
    net = build(net_name, seed=1, bias=True)
    model, x = as_module(net.steps), net.batch(3, seed=2)
    calibration = random_patterns(model)
    explainer = relcompile.compile(model, x, rule=PRESETS[rule].build(calibration, normalise=False))
    expected = oracle(net, x, rule, calibration)
    assert_close(explainer(x, TARGET)[1], expected, FLOAT64)
    assert_close(lowered(explainer.graph_module)(x, TARGET)[1], expected, FLOAT64)


@pytest.mark.parametrize("net_name", NETS)
@pytest.mark.parametrize("rule", ["patternnet", "patternattribution"])
def test_rule_survives_the_onnx_file(rule: str, net_name: str, tmp_path: Path) -> None:
    net = build(net_name, seed=1, bias=True)
    model = as_module(net.steps).float()
    explainer = relcompile.compile(model, net.batch(2, seed=2).float(), rule=rule, calibration=random_patterns(model))
    save(explainer, tmp_path / "explainer.onnx")
    production = relcompile.load(tmp_path / "explainer.onnx", device="cpu")
    for batch in (1, 2, 5):
        x, target = net.batch(batch, seed=batch).float(), torch.arange(batch) % 3
        assert_close(production.explain(x.numpy(), target=target.numpy()).relevance, explainer(x, target)[1], ONNX)


def test_attribution_conserves_where_every_unit_is_active() -> None:
    """w · a = 1 and the bias takes nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    model.get_parameter("0.bias").data.fill_(50.0)
    x = torch.randn(200, 4, dtype=torch.float64)
    calibration = relcompile.calibrate(model, [x])
    explainer = relcompile.compile(model, x, rule="patternattribution", calibration=calibration)
    output, relevance = explainer(x[:3], TARGET)
    assert_conserved(relevance, output.gather(1, TARGET[:, None])[:, 0], 1e-9)


@pytest.mark.parametrize("net_name", NETS)
@pytest.mark.parametrize("rule", ["patternnet", "patternattribution"])
def test_normalising_changes_the_scale_of_each_sample_only(rule: str, net_name: str) -> None:
    """Through branches, too: only bottlenecks are normalised."""
    net = build(net_name, seed=1, bias=True)
    model, x = as_module(net.steps), net.batch(3, seed=2)
    calibration = random_patterns(model)
    maps = [
        relcompile.compile(model, x, rule=PRESETS[rule].build(calibration, normalise=normalise))(x, TARGET)[1].flatten(
            1
        )
        for normalise in (False, True)
    ]
    plain, normalised = (m / m.abs().amax(1, keepdim=True) for m in maps)
    assert_close(normalised, plain, FLOAT64)
    with pytest.raises(AssertionError):
        assert_close(maps[1], maps[0], FLOAT64)


def test_what_reaches_a_normalising_layer_has_magnitude_one() -> None:
    model = nn.Linear(3, 2, bias=False).double()
    calibration = relcompile.calibrate(model, [torch.randn(50, 3, dtype=torch.float64)])
    x = torch.randn(2, 3, dtype=torch.float64)
    output, signal = relcompile.compile(model, x, rule="patternnet", calibration=calibration)(x, TARGET[:2] % 2)
    assert_close(signal, output[:, :1].sign() * calibration.patterns["linear"][0], FLOAT64)


def test_signals_do_not_overflow_in_a_deep_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(40) for layer in (nn.Linear(200, 200), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(200, 3))
    patterns = {name.removesuffix(".weight"): torch.ones_like(w) for name, w in model.named_parameters() if w.ndim == 2}
    calibration, x = Calibration(patterns, weights_digest(model), "relu", 1), torch.randn(2, 200)
    plain, normalised = (
        relcompile.compile(model, x, rule=pattern_net(calibration, normalise=normalise)) for normalise in (False, True)
    )
    assert not plain(x, TARGET[:2])[1].isfinite().all()
    with pytest.raises(ExportError, match="NaN or infinity in relevance"):
        plain.save(tmp_path / "plain.onnx")
    assert normalised(x, TARGET[:2])[1].isfinite().all()
    normalised.save(tmp_path / "normalised.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["normalised.onnx"]


BOTTLENECKS = {
    "mlp": ["fc1", "relu1", "fc2"],
    "residual": ["stem", "stem_relu", "pool", "a_sum", "a_relu", "b_sum", "b_relu", "mean", "fc"],
    "branches": ["cat", "avg", "up", "up_relu", "flat", "fc"],
}


@pytest.mark.parametrize("net_name", BOTTLENECKS)
def test_bottlenecks(net_name: str) -> None:
    seen = list[Layer]()

    def choose(layer: Layer) -> AnyRule:
        seen.append(layer)
        return Adjoint()

    net = build(net_name, seed=1, bias=True)
    module = capture(as_module(net.steps), {"x": net.batch(2, seed=1)}).module
    run_passes(module, CANONICALIZE, keeps=verify_captured)
    AssignRules(choose, ("x",)).apply(module)
    assert list(dict.fromkeys(layer.name for layer in seen if layer.bottleneck)) == BOTTLENECKS[net_name]


@pytest.mark.parametrize("rule", ["patternnet", "patternattribution"])
def test_a_seed_is_where_the_signal_starts(rule: str) -> None:
    net = build("cnn", seed=1, bias=True)
    model, x = as_module(net.steps), net.batch(3, seed=2)
    composite = PRESETS[rule].build(random_patterns(model), normalise=False)
    output, expected = relcompile.compile(model, x, rule=composite)(x, TARGET)
    seed = torch.zeros_like(output).scatter(1, TARGET[:, None], output.gather(1, TARGET[:, None]))
    assert_close(relcompile.compile(model, x, target="seed", rule=composite)(x, seed)[1], expected, FLOAT64)


def test_one_layer_of_another_composite() -> None:
    """`--layer fc=patternattribution` under LRP-0: W ⊙ A passes relevance where LRP-0 would."""
    net = build("mlp", seed=1, bias=False)
    model, x = as_module(net.steps), net.batch(3, seed=2)
    calibration = random_patterns(model)
    given = Given(calibration=calibration)
    composite = named("lrp-0").with_entries(layer_entry("fc1=patternattribution", given))
    W, A = model.get_parameter("fc1.weight").detach(), calibration.patterns["fc1"]
    z = x @ W.T
    gradient = model.get_parameter("fc2.weight").detach()[TARGET]
    expected = (z * (z > 0) * gradient) @ (W * A)
    assert_close(relcompile.compile(model, x, rule=composite)(x, TARGET)[1], expected, FLOAT64)


def stored(path: Path) -> list[np.ndarray[Any, Any]]:
    return [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]


@pytest.mark.parametrize("rule", ["patternnet", "patternattribution"])
def test_the_file_stores_one_pattern_beside_each_weight(rule: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 40, 7), nn.ReLU(), nn.Flatten(), nn.Linear(40 * 16, 10))
    calibration = random_patterns(model)
    explainer = relcompile.compile(model, torch.randn(2, 3, 10, 10), rule=rule, calibration=calibration)
    explainer.save(tmp_path / "x.onnx")
    weights = [p.numel() for name, p in model.named_parameters() if name.endswith("weight")]
    large = sorted(array.size for array in stored(tmp_path / "x.onnx") if array.size > 1000)
    assert large == sorted([*weights, *weights])


def other_weights() -> Calibration:
    return random_patterns(nn.Sequential(nn.Linear(4, 3)))


def other_layers() -> Calibration:
    torch.manual_seed(0)
    return Calibration({"elsewhere": torch.ones(3, 3)}, weights_digest(nn.Linear(4, 3)), "relu", 1)


def other_shape() -> Calibration:
    torch.manual_seed(0)
    return Calibration({"linear": torch.ones(2, 2)}, weights_digest(nn.Linear(4, 3)), "relu", 1)


REFUSED: dict[str, tuple[Callable[[], Calibration | None], type[Exception], str]] = {
    "none": (lambda: None, CompositeError, "relcompile calibrate MODEL DATA"),
    "other weights": (other_weights, CalibrationError, "other weights"),
    "other layers": (other_layers, CompositeError, "no pattern for layer linear; it has: elsewhere"),
    "other shape": (other_shape, CompositeError, r"shape \(2, 2\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_calibration_that_does_not_fit_is_refused(name: str) -> None:
    build_calibration, error, message = REFUSED[name]
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    with pytest.raises(error, match=message):
        relcompile.compile(model, torch.ones(2, 4), rule="patternattribution", calibration=build_calibration())


def test_the_rule_says_nothing_of_its_numbers() -> None:
    net = build("mlp", seed=1, bias=True)
    model, x = as_module(net.steps), net.batch(2, seed=2)
    calibration = random_patterns(model)
    layers = relcompile.compile(model, x, rule="patternnet", calibration=calibration).metadata.layers
    assert {layer.rule for layer in layers if layer.kind == "affine"} == {"Normalised(rule=PatternNet())"}
    assert "tensor" not in repr(calibration)
