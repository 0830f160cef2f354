"""What people do wrong, and the sentence that helps them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.backend.onnx_file import lowered
from relcompile.errors import CaptureError, CompositeError, ExplainerFileError, InputSpecError, TargetError
from tests.cli.test_cli import run, small_network
from tests.compare import FLOAT32, assert_close

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Forward(nn.Module):
    """A forward of its own around a small network."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.function = small_network(), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.net, x)


class AnyArguments(nn.Module):
    """A forward without names."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_network()

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.net(*arguments)


WRONG: dict[str, tuple[nn.Module, Tensor, dict[str, Any], type[Exception], str]] = {
    "channels": (small_network(), X[:, :1], {}, InputSpecError, "does not run on input .*1, 16, 16.*3 channels"),
    "dtype": (small_network(), X.double(), {}, InputSpecError, "does not run on input .* float64: "),
    "functorch": (
        Forward(lambda net, x: torch.func.grad(lambda t: net(t).sum())(x)),
        X,
        {},
        CaptureError,
        "torch.func in forward",
    ),
    "asks for gradients": (
        Forward(lambda net, x: net(x) if torch.is_grad_enabled() else net(-x)),
        X,
        {},
        CaptureError,
        "asks torch.is_grad_enabled",
    ),
    "infinite": (Forward(lambda net, x: net(x) / 0), X, {}, InputSpecError, "itself predicts NaN or infinity"),
    "not a number": (Forward(lambda net, x: net(x) * torch.nan), X, {}, InputSpecError, "itself predicts NaN"),
    "complex": (small_network(), X, {"rule": "deeplift-rescale", "reference": 1j}, InputSpecError, "is complex"),
    "complex tensor": (
        small_network(),
        X,
        {"rule": "deeplift-rescale", "reference": torch.zeros(3, 16, 16, dtype=torch.complex64)},
        InputSpecError,
        "is complex",
    ),
    "spelt out": (small_network(), X, {"rule": "zplus"}, CompositeError, r"nearest: z\+$"),
    "underscored": (small_network(), X, {"rule": "epsilon_plus"}, CompositeError, "nearest: epsilon-plus"),
    "bounds": (small_network(), X, {"rule": "gamma", "bounds": (0.0, 1.0)}, CompositeError, "gamma takes no bounds"),
    "bounds of own rules": (
        small_network(),
        X,
        {"rule": relcompile.Composite("mine"), "bounds": (0.0, 1.0)},
        CompositeError,
        "mine takes no bounds",
    ),
    "calibration": (
        small_network(),
        X,
        {"calibration": relcompile.calibrate(small_network(), [X])},
        CompositeError,
        r"z\+ takes no calibration",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_sentence_that_helps(name: str) -> None:
    model, x, keywords, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        relcompile.compile(model, x, **keywords)


def test_bounds_go_to_a_rule_of_one_layer() -> None:
    explainer = relcompile.compile(small_network(), X, rule="gamma", layers=("0=zb",), bounds=(-4.0, 4.0))
    assert "ZBox" in explainer.metadata.layers[0].rule


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, lambda _: AnyArguments()], ids=["parallel", "compiled", "any arguments"]
)
def test_wrapped_models_compile_as_what_they_wrap(wrap: Callable[[nn.Module], nn.Module]) -> None:
    target = torch.tensor([1, 4])
    expected = relcompile.compile(small_network(), X)(X, target)[1]
    assert_close(relcompile.compile(wrap(small_network()), X)(X, target)[1], expected, FLOAT32)


@pytest.mark.parametrize("model", [nn.Identity(), nn.Sequential()], ids=["identity", "empty"])
def test_a_model_without_operators(model: nn.Module) -> None:
    """R = x at the target and 0 elsewhere, in every library and by hand."""
    x = X[:, :, 0, 0]
    _, relevance = relcompile.compile(model, x, rule="epsilon")(x, torch.tensor([2, 0]))
    assert_close(relevance, x * torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), FLOAT32)


@pytest.mark.parametrize("target", [3.5, "3", None, True, [1, 2]])
def test_targets_of_wrong_types(target: Any) -> None:
    with pytest.raises(TargetError, match="want one integer"):
        relcompile.compile(small_network(), X)(X, target)


def test_one_score_needs_no_target(tmp_path: Path) -> None:
    explainer = relcompile.compile(nn.Sequential(nn.Flatten(), nn.Linear(768, 1)), X, rule="epsilon")
    explainer.save(tmp_path / "x.onnx")
    expected = explainer(X, 0)[1]
    assert_close(explainer(X)[1], expected, FLOAT32)
    found = relcompile.load(tmp_path / "x.onnx", device="cpu").explain(X.numpy())
    assert_close(torch.from_numpy(found.relevance), expected, FLOAT32)


COMMANDS: dict[str, tuple[list[str], str]] = {
    "a typo": (["expain", "x.onnx"], "did you mean `relcompile explain`?"),
    "a model": (["explain", "{model}", "cat.jpg"], "is a model or its weights, not an explainer; compile it"),
    "a rule": (["{model}", "--input", "1x3x16x16", "--rule", "zplus"], "nearest: z+"),
    "a class of no report": (["inspect", "{model}", "--target", "3"], "give --roots too"),
    "no device": (["explain", "{model}", "cat.jpg", "--device", "tpu"], 'want "auto", "cpu", "cuda" or "tensorrt"'),
    "no pictures": (["explain", "{model}", "cat.jpg", "--no-png", "--overlay-only"], "--no-png draws nothing"),
    "no colours": (["explain", "{model}", "cat.jpg", "--colormap", "RdBu_s"], "nearest: RdBu"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = COMMANDS[name]
    torch.save(small_network(), tmp_path / "model.pt")
    code, _, err = run(*(argument.format(model=tmp_path / "model.pt") for argument in arguments), capsys=capsys)
    assert (code, message in err) == (2, True), err


@pytest.mark.parametrize("rule", ["gradient", "z+", "epsilon", "contrastive-lrp", "grad-cam", "w2", "root"])
def test_a_class_that_does_not_exist_is_nan(rule: str, tmp_path: Path) -> None:
    """In plain ONNX Runtime, which asks nobody; the sample beside it is explained all the same."""
    explainer = relcompile.compile(small_network(), X, rule=rule)
    explainer.save(tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    for wrong in (-1, 5, 1000):
        feeds = {"input": X.numpy(), "target": np.array([wrong, 2])}
        relevance: Any = session.run(["relevance"], feeds)[0]
        assert np.isnan(relevance[0]).all()
        expected = explainer(X, torch.tensor([2, 2]))[1][1].numpy()
        np.testing.assert_allclose(relevance[1], expected, atol=2e-3 * np.abs(expected).max())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    relcompile.compile(small_network(), X).save(tmp_path / "x.onnx")
    return tmp_path / "x.onnx"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_flagged(value: float, saved: Path) -> None:
    x = X.numpy().copy()
    x[1, 0, 5, 5] = value
    assert relcompile.load(saved, device="cpu").explain(x, target=1).finite.tolist() == [True, False]


def test_explainers_travel(saved: Path) -> None:
    explainer = relcompile.load(saved, device="cpu", threads=1)
    expected = explainer.explain(X.numpy(), target=3).relevance
    for travelled in (pickle.loads(pickle.dumps(explainer)), copy.deepcopy(explainer), copy.copy(explainer)):
        np.testing.assert_array_equal(travelled.explain(X.numpy(), target=3).relevance, expected)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None, True])
def test_seeds_that_are_none(seed: Any, saved: Path) -> None:
    with pytest.raises(InputSpecError, match="seed="):
        relcompile.load(saved, device="cpu").explain(X.numpy(), target=0, seed=seed)


@pytest.mark.parametrize("path", [None, 3])
def test_paths_that_are_none(path: Any) -> None:
    with pytest.raises(InputSpecError, match="want the path"):
        relcompile.load(path)
    with pytest.raises(ExplainerFileError, match="int64 tensor"):
        relcompile.load("x.pt2")


def test_constants_do_not_depend_on_the_number_of_threads() -> None:
    """w² sums squares of constants, which PyTorch adds in another order for every number of threads."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(64, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    x, threads, graphs = torch.rand(2, 64, 10, 10), torch.get_num_threads(), list[list[Tensor]]()
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            graphs.append(list(lowered(relcompile.compile(net, x, rule="w2", target=1).graph_module).buffers()))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*graphs, strict=True))


def test_a_value_that_is_none_of_a_few_is_told_which_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("batch", "e.onnx", "photographs", "out", "--stored", "int4", capsys=capsys)
    assert code == 2
    assert "Invalid value for '--stored': 'int4' is not one of 'float16', 'int8'" in " ".join(err.split())
