"""Rules from outside, and the gradient where a method has none."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relcompile
from passes.errors import OutsideRuleError, UnsupportedOperatorError
from relcompile.cli.main import main
from relcompile.errors import CompositeError
from relcompile.methods.composites import Entry
from relcompile.rules import Adjoint, AffineCall, Call, Form, Messages, Multiplier, Relevance
from tests.compare import FLOAT64, ONNX, assert_close
from tests.oracles import affine

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the example, from its folder, as its first lines say."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("custom_rule")
    sys.modules.pop("custom_rule")


def by_hand(example: Any, x: Tensor) -> Tensor:
    """LRP-ε of autograd above the mixture: R = x ⊙ gradient, as ε is tiny and everything above a ReLU network."""
    mix, *above = example.network().double()
    mixed = mix(x).detach().requires_grad_()
    score = nn.Sequential(*above)(mixed)[:, 0].sum()
    R = mixed * torch.autograd.grad(score, mixed)[0]
    squares = (mix.weight.detach().reshape(1, 4, 1) * x) ** 2
    return squares / squares.sum(1, keepdim=True) * R


PLACES: dict[str, dict[str, Any]] = {
    "module_type": {"module_type": "Downmix"},
    "operator": {"operator": "convolution"},
    "name": {"name": "0", "last": False},
}


@pytest.mark.parametrize("place", PLACES)
def test_a_rule_goes_to_a_module_class_an_operator_or_a_layer(example: Any, place: str) -> None:
    x = torch.randn(2, 4, 64, dtype=torch.float64)
    entry = Entry(example.ByEnergy(), **PLACES[place])
    explainer = relcompile.compile(example.network().double(), x, rule="lrp-0", rules=[entry])
    chosen = {layer.name: layer.rule for layer in explainer.metadata.layers if layer.rule.startswith("ByEnergy")}
    assert set(chosen) == ({"0", "1"} if place == "operator" else {"0"})
    assert explainer.metadata.layer_rules == (entry.label,)
    if place != "operator":
        assert_close(explainer(x, 0)[1], by_hand(example, x).detach(), FLOAT64)


def test_the_example_runs_on_the_command_line(example: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        example.main(["--folder", str(tmp_path)])
    assert not stop.value.code
    assert "plugin: custom_rule is imported, and so run" in capfd.readouterr().err
    production = relcompile.load(tmp_path / "downmix.onnx", device="cpu")
    assert production.metadata.layers[0].rule == "ByEnergy(epsilon=1e-12)"
    x = torch.randn(3, 4, 64, generator=torch.Generator().manual_seed(1))
    found = production.explain(x.numpy(), target=0).relevance
    assert_close(found, by_hand(example, x.double()).detach().numpy(), ONNX)


WRONG: dict[str, tuple[Any, str]] = {
    "matches nothing": (Entry(Adjoint(), module_type="Upmix"), "no layer matches module_type='Upmix'"),
    "not defined there": (Entry(Adjoint(), kind="pool", operator="linear"), "no layer matches"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_rule_without_effect_is_an_error(name: str) -> None:
    entry, message = WRONG[name]
    with pytest.raises(CompositeError, match=message):
        relcompile.compile(nn.Sequential(nn.Linear(4, 2)), torch.randn(2, 4), rule="z+", rules=[entry])


@dataclass(frozen=True)
class Faulty:
    """A rule that does something wrong."""

    fault: Callable[[AffineCall, Relevance], Any]
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        return self.fault(call, arriving)


def divides(_call: AffineCall, _arriving: Relevance) -> Messages:
    return (Multiplier(_call.x, _call.x / (1 // 0)),)


FAULTS: dict[str, tuple[Callable[[AffineCall, Relevance], Any], str]] = {
    "it raises": (divides, r"ZeroDivisionError: .* \(.*test_outside\.py:\d+\)"),
    "no tuple": (
        lambda call, arriving: Relevance(call.x, arriving.relevance),
        "it returned a Relevance, and not a tuple",
    ),
    "too many": (lambda _call, _arriving: (None, None), "it returned a tuple of 2, and not a tuple with a message"),
    "no message": (lambda call, _arriving: (call.x,), "it returned a tuple with a Value"),
    "another place": (lambda _call, arriving: (arriving,), "its message is at .*, and not at the operand"),
    "another shape": (lambda call, arriving: (Relevance(call.x, arriving.relevance),), r"has the shape .*2\], and the"),
    "shapes that do not fit": (
        lambda call, arriving: (Relevance(call.x, call.x * arriving.relevance),),
        "RuntimeError",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_rule_is_told_as_its_own(name: str) -> None:
    fault, message = FAULTS[name]
    entry = Entry(Faulty(fault), kind="affine")
    with pytest.raises(OutsideRuleError, match=rf"the rule Faulty from {__name__} failed at 0 \(linear.*{message}"):
        relcompile.compile(nn.Sequential(nn.Linear(4, 2)), torch.randn(2, 4), rule="z+", rules=[entry])


def test_a_fault_of_a_plugin_is_the_users_to_mend(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(example.ByEnergy, "propagate", lambda *_: None)
    torch.save(example.network().state_dict(), tmp_path / "downmix.pt")
    words = [str(tmp_path / "downmix.pt"), "--arch", "custom_rule:network", "--input", "1x4x64"]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--plugin", "custom_rule:ENTRIES", "-o", str(tmp_path / "downmix.onnx")])
    assert stop.value.code == 2
    told = " ".join(capfd.readouterr().err.split())
    assert "the rule ByEnergy from custom_rule failed at 0 (convolution" in told
    assert "it returned a NoneType" in told
    assert not (tmp_path / "downmix.onnx").exists()


def test_what_is_no_rule_is_an_error() -> None:
    rule: Any = object()
    with pytest.raises(CompositeError, match="is no rule: it has no applies_to, reads, propagate"):
        Entry(rule)


PLUGINS: dict[str, tuple[str, str]] = {
    "nothing": ("custom_rule", "write package.module:object"),
    "no module": ("no_such_rules:ENTRIES", "ModuleNotFoundError"),
    "no object": ("custom_rule:NONE", "AttributeError"),
    "something else": ("custom_rule:network", "is Sequential, no Entry, list of them or Composite"),
}


@pytest.mark.parametrize("name", PLUGINS)
def test_a_wrong_plugin_is_one_message(name: str, example: Any, capfd: pytest.CaptureFixture[str]) -> None:
    spec, message = PLUGINS[name]
    with pytest.raises(SystemExit) as stop:
        main(["model.pt", "--plugin", spec])
    assert stop.value.code == 2
    assert message in capfd.readouterr().err


class Inner(nn.Module):
    """A softmax inside that pays no attention."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.above = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.above(self.below(x).softmax(1))


def test_the_error_names_the_fallback() -> None:
    with pytest.raises(
        UnsupportedOperatorError, match=r"--fallback gradient .*passes that one by the exact derivative"
    ):
        relcompile.compile(Inner(), torch.randn(2, 4), rule="epsilon")


def test_a_fallback_is_the_exact_derivative_and_is_recorded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model, x = Inner().double(), torch.randn(2, 4, dtype=torch.float64)
    explainer = relcompile.compile(model, x, rule="epsilon", fallback="gradient", name="inner")
    z = model.below(x).detach()
    s = z.softmax(1)
    R = torch.zeros(2, 3, dtype=torch.float64)
    R[:, 1] = model.above(s)[:, 1].detach()
    W, b = model.above.weight.detach(), model.above.bias.detach()
    m = affine.epsilon(s, W, b, R, eps=1e-6, bias="full") / s
    R = z * (s * (m - (s * m).sum(1, keepdim=True)))
    W, b = model.below.weight.detach(), model.below.bias.detach()
    assert_close(explainer(x, 1)[1], affine.epsilon(x, W, b, R, eps=1e-6, bias="full"), FLOAT64)
    assert [layer.operator for layer in explainer.metadata.layers if layer.rule == "Fallback()"] == ["softmax"]
    assert explainer.metadata.name == ("inner", "epsilon", "fallback=gradient")
    relcompile.compile(model.float(), x.float(), rule="epsilon", fallback="gradient").save(tmp_path / "inner.onnx")
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "inner.onnx")])
    assert "gradient as fallback" in capfd.readouterr().out


def test_a_fallback_that_nothing_needs_leaves_no_trace() -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(2, 4)
    given, plain = (relcompile.compile(model, x, rule="z+", fallback=fallback) for fallback in ("gradient", None))
    assert given.metadata == plain.metadata
    assert np.array_equal(given(x, 0)[1], plain(x, 0)[1])
