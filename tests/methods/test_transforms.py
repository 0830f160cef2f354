"""Contrasts, Grad-CAM, SmoothGrad, Integrated Gradients and relevance at a layer, against slow oracles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.backend.onnx_file import lowered
from relcompile.errors import CompositeError, InputSpecError
from relcompile.methods.composites import Composite
from relcompile.methods.presets import grad_cam, integrated_gradients, smoothgrad, z_plus
from relcompile.methods.sampling import GaussianNoise
from tests.compare import FLOAT64, ONNX, assert_close, assert_conserved
from tests.methods.rules.cases import EPSILON, EXACT, Z_PLUS
from tests.oracles import nets, transforms
from tests.oracles.network import Step, as_module, explain, forward

TARGET = torch.tensor([0, 2, 1])
Z_PLUS_RULES = {**EXACT, "affine": Z_PLUS}
COPIES, LEVEL = 3, 0.3
BASELINE = (0.5, -1.0)


class Problem(NamedTuple):
    """A network, a batch and noise for it."""

    net: nets.Net
    x: Tensor
    noise: Tensor


def problem(name: str) -> Problem:
    net = nets.build(name, seed=1, bias=True)
    shape = (3, COPIES, *net.input_shape)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return Problem(net, net.batch(3, seed=2), noise)


def contrastive_lrp(p: Problem) -> Tensor:
    return transforms.contrastive_lrp(p.net.steps, p.x, TARGET, Z_PLUS_RULES)


def contrastive_excitation(p: Problem) -> Tensor:
    last = {"fc": lambda *arguments: transforms.excitation_less_inhibition(*arguments, eps=1e-9)}
    return explain(p.net.steps, p.x, TARGET, {**Z_PLUS_RULES, **last}, start="one")["input"].detach()


def tail(steps: tuple[Step, ...], name: str) -> tuple[Step, ...]:
    """The steps above the value `name`, which becomes their input."""
    place = [step.name for step in steps].index(name)
    return tuple(Step(s.name, s.op, tuple("input" if i == name else i for i in s.inputs)) for s in steps[place + 1 :])


def cam(layer: str) -> Callable[[Problem], Tensor]:
    def oracle(p: Problem) -> Tensor:
        A, above = forward(p.net.steps, p.x)[layer], as_module(tail(p.net.steps, layer))
        return transforms.grad_cam(above, A, TARGET, (p.x.shape[2], p.x.shape[3]))

    return oracle


def smooth(p: Problem) -> Tensor:
    return transforms.smoothgrad(as_module(p.net.steps), p.x, TARGET, p.noise, LEVEL)


def smooth_z_plus(p: Problem) -> Tensor:
    extent = p.x.flatten(1).amax(1) - p.x.flatten(1).amin(1)
    noisy = p.x[:, None] + LEVEL * extent.reshape(-1, 1, 1, 1, 1) * p.noise
    maps = [explain(p.net.steps, x, TARGET, Z_PLUS_RULES, start="logit")["input"].detach() for x in noisy.unbind(1)]
    return torch.stack(maps).mean(0)


def integrated(steps: int, baseline: Any = 0.0) -> Callable[[Problem], Tensor]:
    return lambda p: transforms.integrated_gradients(as_module(p.net.steps), p.x, TARGET, steps, baseline)


class Case(NamedTuple):
    """A composite, the layer it is read at, and what it should be."""

    rule: str | Composite
    oracle: Callable[[Problem], Tensor]
    net: str = "residual"
    at: str | None = None


CASES = {
    "contrastive LRP": Case("contrastive-lrp", contrastive_lrp),
    "contrastive LRP, branches": Case("contrastive-lrp", contrastive_lrp, "branches"),
    "contrastive excitation": Case("contrastive-excitation-backprop", contrastive_excitation),
    "Grad-CAM of the last map": Case("grad-cam", cam("b_relu")),
    "Grad-CAM of a named layer": Case("grad-cam", cam("pool1"), "cnn", "pool1"),
    "SmoothGrad": Case(smoothgrad(COPIES, LEVEL), smooth),
    "SmoothGrad of z+": Case(replace(z_plus(), sampling=GaussianNoise(COPIES, LEVEL)), smooth_z_plus),
    "Integrated Gradients": Case("integrated-gradients=4", integrated(4)),
    "Integrated Gradients from a colour": Case(
        integrated_gradients(5, BASELINE),
        integrated(5, torch.tensor(BASELINE, dtype=torch.float64).reshape(2, 1, 1)),
        "cnn",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_method_equals_its_oracle(name: str) -> None:
    case = CASES[name]
    p = problem(case.net)
    model = as_module(p.net.steps)
    explainer = relcompile.compile(model, p.x[:2], rule=case.rule, at=case.at)
    noise = [p.noise] if explainer.metadata.noise else []
    expected = case.oracle(p)
    assert expected.abs().max() > 0
    for module in (explainer, lowered(explainer.graph_module)):
        output, relevance = module(p.x, TARGET, *noise)
        assert_close(output, model(p.x).detach(), FLOAT64)
        assert_close(relevance, expected, FLOAT64)


@pytest.mark.parametrize(
    "name", ["contrastive LRP", "contrastive excitation", "Grad-CAM of a named layer", "SmoothGrad"]
)
def test_method_survives_the_onnx_file(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    p = problem(case.net)
    explainer = relcompile.compile(as_module(p.net.steps).float(), p.x[:2].float(), rule=case.rule, at=case.at)
    explainer.save(tmp_path / "explainer.onnx")
    production = relcompile.load(tmp_path / "explainer.onnx", device="cpu")
    assert production.metadata == explainer.metadata
    assert (production.metadata.sampling is None) == (name != "SmoothGrad")
    for batch in (1, 2, 5):
        x, target = p.net.batch(batch, seed=batch).float(), torch.arange(batch) % 3
        noise = torch.randn(batch, COPIES, *p.net.input_shape) if explainer.metadata.noise else None
        output, relevance = explainer(x, target, *([] if noise is None else [noise]))
        given = None if noise is None else {"noise": noise.numpy()}
        found = production.explain(x.numpy(), target=target.numpy(), noise=given)
        assert_close(found.output, output, ONNX)
        assert_close(found.relevance, relevance, ONNX)


def test_noise_is_drawn_from_a_seed(tmp_path: Path) -> None:
    p = problem("mlp")
    relcompile.compile(as_module(p.net.steps).float(), p.x.float(), rule="smoothgrad=4").save(tmp_path / "e.onnx")
    production, x = relcompile.load(tmp_path / "e.onnx", device="cpu"), p.x.float().numpy()
    first, again = (production.explain(x, target=1).relevance for _ in range(2))
    other = production.explain(x, target=1, seed=1).relevance
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    noise = np.random.default_rng(1).standard_normal((3, 4, 6), np.float32)
    assert np.array_equal(production.explain(x, target=1, noise={"noise": noise}).relevance, other)
    for wrong in ({"noise": noise[:2]}, {"nose": noise}, {"noise": noise.astype(np.float64)}):
        with pytest.raises(InputSpecError, match="noise"):
            production.explain(x, target=1, noise=wrong)


@pytest.mark.parametrize("mode", ["argmax", "2", "seed"])
def test_copies_explain_the_target_of_their_sample(mode: str) -> None:
    p = problem("cnn")
    model = as_module(p.net.steps)
    output = model(p.x).detach()
    target = output.argmax(1) if mode == "argmax" else torch.tensor([2, 2, 2])
    expected = relcompile.compile(model, p.x, rule=smoothgrad(COPIES, 1.0))(p.x, target, p.noise)[1]
    given = [nn.functional.one_hot(target, 3).double()] if mode == "seed" else []
    found = relcompile.compile(model, p.x, rule=smoothgrad(COPIES, 1.0), target=mode)(p.x, *given, p.noise)[1]
    assert_close(found, expected, FLOAT64)


class Sizes(nn.Module):
    """Computes with its batch size, and takes a second input of integers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.mix, self.head = nn.Embedding(5, 4), nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, word: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(n * height * width, channels)
        mixed = self.mix(pixels).tanh().view(n, height * width, 4).mean(1)
        return self.head(mixed + self.table(word))


def test_copies_of_a_model_that_computes_with_sizes() -> None:
    p, model = problem("cnn"), Sizes().double()
    word = torch.tensor([4, 0, 2])
    explainer = relcompile.compile(model, (p.x[:2], word[:2]), rule=smoothgrad(COPIES, LEVEL))
    output, relevance = explainer(p.x, word, TARGET, p.noise)
    assert_close(output, model(p.x, word).detach(), FLOAT64)
    for n in range(3):

        def alone(x: Tensor, n: int = n) -> Tensor:
            return model(x, word[n : n + 1])

        rows = slice(n, n + 1)
        expected = transforms.smoothgrad(alone, p.x[rows], TARGET[rows], p.noise[rows], LEVEL)
        assert_close(relevance[rows], expected, FLOAT64)


class Product(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left**2 * right


def test_several_inputs_share_a_path() -> None:
    """R of x in x² y from 0: the integral of x · 2 t x · t y over t is 2/3 x² y, and 1/3 x² y is left for y."""
    left, right = (torch.randn(3, 4, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (1, 2))
    explainer = relcompile.compile(Product(), (left, right), rule=integrated_gradients(1000), target=1)
    output, of_left, of_right = explainer(left, right)
    chosen = nn.functional.one_hot(torch.tensor([1, 1, 1]), 4)
    assert_close(of_left, 2 / 3 * output * chosen, 1e-6)  # the midpoint rule is wrong by 1 / (12 · 1000²)
    assert_close(of_right, 1 / 3 * output * chosen, 1e-6)
    turned = relcompile.compile(
        Product(), (left, right), rule=integrated_gradients(1000), target=1, explain=["right", "left"]
    )
    assert turned.metadata.relevance == ("relevance_right", "relevance_left")
    assert_close(turned(left, right)[1], of_right, FLOAT64)
    noisy = relcompile.compile(Product(), (left, right), rule="smoothgrad=2").metadata.noise
    assert [(record.name, record.shape) for record in noisy] == [
        ("noise_left", ("batch", 2, 4)),
        ("noise_right", ("batch", 2, 4)),
    ]


def test_contrasts_of_two_classes_do_not_overlap() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).double()
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    explainer = relcompile.compile(model, x, rule="contrastive-lrp")
    first, second = (explainer(x, torch.tensor([k, k]))[1] for k in range(2))
    assert min(float(first.amax((1, 2, 3)).min()), float(second.amax((1, 2, 3)).min())) > 0
    assert float((first * second).abs().max()) == 0
    # What one class has more, the other has less: both maps are parts of one difference of maps that sum to 1.
    assert_close(first.sum((1, 2, 3)), second.sum((1, 2, 3)), FLOAT64)


@pytest.mark.parametrize("steps", [8, 128])
def test_integrated_gradients_become_complete(steps: int) -> None:
    """The midpoint rule is wrong by at most V / 2n, V the total variation of the slope along the way."""
    p = problem("cnn")
    model, rows = as_module(p.net.steps), torch.arange(3)
    expected = (model(p.x) - model(torch.zeros_like(p.x)))[rows, TARGET].detach()
    total = relcompile.compile(model, p.x, rule=integrated_gradients(steps))(p.x, TARGET)[1].sum((1, 2, 3))
    parts = torch.linspace(0, 1, 2001, dtype=torch.float64)
    for sample, target, error in zip(p.x, TARGET, (total - expected).abs(), strict=True):
        way = (parts.reshape(-1, 1, 1, 1) * sample).requires_grad_()
        (gradients,) = torch.autograd.grad(model(way)[:, target].sum(), way)
        slopes = (gradients * sample).sum((1, 2, 3))
        variation = float(slopes.diff().abs().sum())
        assert variation > 0
        assert float(error) <= variation / (2 * steps)


@pytest.mark.parametrize("layer", ["stem", "pool", "a_sum", "b_skip", "mean", "fc"])
def test_relevance_at_a_layer(layer: str) -> None:
    p = problem("residual")
    explainer = relcompile.compile(as_module(p.net.steps), p.x, rule="epsilon", at=layer, absorbed=True)
    output, relevance, absorbed = explainer(p.x, TARGET)
    expected = explain(p.net.steps, p.x, TARGET, {**EXACT, "affine": EPSILON}, start="logit")[layer].detach()
    assert_close(relevance, expected, FLOAT64)
    assert explainer.metadata.at == layer
    logit = output.gather(1, TARGET[:, None])[:, 0].detach()
    if layer != "b_skip":  # the other layers are cuts of the graph
        assert_conserved(torch.cat([relevance.flatten(1), absorbed], 1), logit, 1e-9)


def test_a_layer_keeps_its_output_where_batch_norms_are_merged() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    nn.init.uniform_(layers.get_parameter("1.weight"), 2.0, 3.0)
    model, x = layers.double().eval(), torch.randn(2, 2, 6, 6, dtype=torch.float64)
    for name in ("0", "1"):
        A = model[: int(name) + 1](x).detach().requires_grad_()
        (expected,) = torch.autograd.grad(model[int(name) + 1 :](A)[:, 1].sum(), A)
        assert_close(relcompile.compile(model, x, rule="gradient", at=name, target=1)(x)[1], expected, FLOAT64)


class Reuse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head, self.unused = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.head(self.layer(self.layer(x).relu()))


@pytest.mark.parametrize(
    ("layer", "message"), [("layer", "used 2 times"), ("nothing", "layer, head$"), ("unused", "layer, head$")]
)
def test_a_layer_that_cannot_be_read(layer: str, message: str) -> None:
    with pytest.raises(relcompile.UnknownLayerError, match=message):
        relcompile.compile(Reuse(), torch.randn(2, 4), rule="gradient", at=layer)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "contrast of a seed": ({"rule": "contrastive-lrp", "target": "seed"}, "no seed"),
    "contrast, absorbed": ({"rule": "contrastive-lrp", "absorbed": True}, "two walks"),
    "path at a layer": ({"rule": "integrated-gradients", "at": "relu1"}, "at the input only"),
    "map of a dense layer": ({"rule": "grad-cam", "at": "fc"}, "spatial"),
    "half a copy": ({"rule": "smoothgrad=2.5"}, "whole number"),
    "no copies": ({"rule": "integrated-gradients=0"}, "whole number"),
    "too many copies": ({"rule": "integrated-gradients=1000000000000"}, "1,000,000 at most"),
}


@pytest.mark.parametrize("name", WRONG)
def test_questions_without_an_answer(name: str) -> None:
    settings, message = WRONG[name]
    p = problem("cnn")
    with pytest.raises(CompositeError, match=message):
        relcompile.compile(as_module(p.net.steps), p.x, **settings)


def test_grad_cam_needs_a_feature_map() -> None:
    with pytest.raises(relcompile.UnknownLayerError, match="no convolution"):
        relcompile.compile(Reuse(), torch.randn(2, 4), rule=grad_cam())
