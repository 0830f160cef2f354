"""What people do wrong, and the sentence that helps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.errors import CaptureError, CompositeError, InputSpecError, TargetError
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
    "no batch": (small_network(), X[0], {}, InputSpecError, "(?s)does not run on input .*the batch first"),
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
    "spelt out": (small_network(), X, {"rule": "zplus"}, CompositeError, r"nearest: z\+$"),
    "underscored": (small_network(), X, {"rule": "epsilon_plus"}, CompositeError, "nearest: epsilon-plus"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_sentence_that_helps(name: str) -> None:
    model, x, keywords, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        relcompile.compile(model, x, **keywords)


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, lambda _: AnyArguments()], ids=["parallel", "compiled", "any arguments"]
)
def test_wrapped_models_compile_as_what_they_wrap(wrap: Callable[[nn.Module], nn.Module]) -> None:
    target = torch.tensor([1, 4])
    expected = relcompile.compile(small_network(), X)(X, target)[1]
    assert_close(relcompile.compile(wrap(small_network()), X)(X, target)[1], expected, FLOAT32)


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
    "a name of other bytes": (
        ["explain", "\udcff.onnx", "cat.jpg"],
        "the path is not UTF-8, which ONNX Runtime asks for",
    ),
    "a result of such a name": (["{model}", "--input", "1x3x16x16", "-o", "\udcff.onnx"], "the path is not UTF-8"),
    "a folder as the model": (["."], "is a folder, not a file"),
    "no model at all": ([""], "one of the arguments is empty: is a variable of the shell not set?"),
    "no photograph at all": (["explain", "{model}", ""], "one of the arguments is empty"),
    "a figure in another format": (
        ["compare", "a.onnx", "b.onnx", "cat.jpg", "-o", "c.jpg"],
        "the suffix must be .png",
    ),
    "a folder as an evaluation": (["report", "."], "is a folder, not a file"),
    "a folder as patterns": (["calibrate", "{model}", "{model}.npy", "-o", "."], "is a folder, not a file"),
    "no colours": (["explain", "{model}", "cat.jpg", "--colormap", "RdBu_s"], "nearest: RdBu"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = COMMANDS[name]
    torch.save(small_network(), tmp_path / "model.pt")
    code, _, err = run(*(argument.format(model=tmp_path / "model.pt") for argument in arguments), capsys=capsys)
    assert (code, message in err) == (2, True), err


def test_a_value_that_is_none_of_a_few_is_told_which_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("batch", "e.onnx", "photographs", "out", "--stored", "int4", capsys=capsys)
    assert code == 2
    assert "Invalid value for '--stored': 'int4' is not one of 'float16', 'int8'" in " ".join(err.split())
