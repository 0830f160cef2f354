"""Options that win nothing were taken without a word: each is an error that says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import relcompile
from relcompile.errors import RelcompileError
from tests.cli.test_cli import run, small_network

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
PATTERNS = relcompile.calibrate(small_network(), [X])
# What is asked of z+, unless it names a rule; and what is said of it.
WITHOUT_EFFECT: dict[str, tuple[dict[str, Any], str]] = {
    "bounds": ({"rule": "gamma", "bounds": (0.0, 1.0)}, "gamma takes no bounds"),
    "bounds of own rules": ({"rule": relcompile.Composite("mine"), "bounds": (0.0, 1.0)}, "mine takes no bounds"),
    "a calibration": ({"calibration": PATTERNS}, r"z\+ takes no calibration"),
    "a reference": ({"reference": 0.5}, "takes no differences"),
}


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_is_refused(name: str) -> None:
    keywords, message = WITHOUT_EFFECT[name]
    with pytest.raises(RelcompileError, match=message):
        relcompile.compile(small_network(), X, **keywords)


TWICE: dict[str, tuple[list[str], str]] = {
    "target": (["m.pt", "--target", "argmax", "--target", "3"], "--target is given 2 times"),
    "by both names": (["m.pt", "-r", "z+", "--rule", "epsilon"], "--rule is given 2 times"),
    "of a sub-command": (["explain", "e.onnx", "cat.jpg", "-o", "a", "-o", "b"], "--output is given 2 times"),
}


@pytest.mark.parametrize("name", TWICE)
def test_an_option_of_one_value_has_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = TWICE[name]
    code, _, err = run(*arguments, capsys=capsys)
    assert (code, message in err) == (2, True)


def test_bounds_go_to_a_rule_of_one_layer() -> None:
    explainer = relcompile.compile(small_network(), X, rule="gamma", layers=("0=zb",), bounds=(-4.0, 4.0))
    assert "ZBox" in explainer.metadata.layers[0].rule
