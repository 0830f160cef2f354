"""Options: declared once, the same in Python and on the command line."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, get_type_hints

import pytest
import torch
from torch import nn

import relcompile
from relcompile import Options
from relcompile.cli import options as groups
from relcompile.cli.commands.compile import _rules, compile_
from relcompile.cli.groups import flat
from relcompile.methods.rules.input_layer import Flat
from relcompile.presets import Entry, named
from relcompile.question.options import Keywords
from tests.compare import FLOAT64, assert_close

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGET = torch.tensor([1, 2])
PARAMETERS = inspect.signature(flat(compile_)).parameters


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).double()


def test_the_keywords_are_the_fields() -> None:
    hints = get_type_hints(Options)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(Options)}
    assert get_type_hints(Keywords) == {name: hint for name, hint in fields.items() if name != "chosen"}  # by "auto"


@pytest.mark.parametrize(
    "option", [f.name for f in dataclasses.fields(Options) if f.name not in ("preprocessing", "name", "chosen")]
)
def test_the_command_line_has_every_option(option: str) -> None:
    assert {"rules": "plugin"}.get(option, option) in PARAMETERS


def test_every_option_arrives() -> None:
    """What the command line takes and does not hand on would be an option without effect."""
    handed_on = {*_rules(groups.Method(), (), None), *(f.name for f in dataclasses.fields(groups.Question))}
    assert handed_on | {"class_names", "name", "chosen"} == {f.name for f in dataclasses.fields(Options)}


def test_the_defaults_of_the_command_line_are_the_same() -> None:
    for option in ("rule", "target", "output", "at", "start", "absorbed", "roots"):
        written = PARAMETERS[option].default
        assert written == (str(Options().output) if option == "output" else getattr(Options(), option))


def test_rules_of_single_layers() -> None:
    by_text = relcompile.compile(network(), X, rule="epsilon", layers=["0=flat"])(X, TARGET)[1]
    composite = named("epsilon").with_entries(Entry(Flat(), kind="affine", name="0"))
    assert_close(by_text, relcompile.compile(network(), X, rule=composite)(X, TARGET)[1], FLOAT64)
    assert not torch.allclose(by_text, relcompile.compile(network(), X, rule="epsilon")(X, TARGET)[1])


def never(*_: object) -> Any:
    raise AssertionError("the model was captured before the options were looked at")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rule": "z++"}, relcompile.RelcompileError, "nearest: z"),
        ({"name": "model", "layers": ["0"]}, relcompile.RelcompileError, "does not read NAME=RULE"),
        ({"reference": 0.5}, relcompile.RelcompileError, "takes no differences"),
        ({"targets": 1}, TypeError, "unexpected keyword argument 'targets'"),
    ],
)
def test_mistakes_are_found_before_the_model_is_captured(
    options: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relcompile.compiler.captured_graph", never)
    with pytest.raises(error, match=message):
        relcompile.compile(network(), X, **options)


def passed(*_: object, **__: object) -> Any:
    raise AssertionError("a pass ran before the question was looked at")


@pytest.mark.parametrize(
    "options",
    [
        {"target": 9},
        {"target": "best"},
        {"at": "4"},
        {"explain": ["y"]},
        {"output": 3},
        {"rule": "grad-cam", "at": "3"},
        {"rule": "contrastive-lrp", "target": "seed"},
        {"rule": "deeplift-rescale", "reference": (1.0, 2.0)},
    ],
    ids=str,
)
def test_questions_are_refused_before_a_pass_runs(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relcompile.compiler.canonicalize", passed)
    with pytest.raises((relcompile.RelcompileError, relcompile.UnknownLayerError)):
        relcompile.compile(network(), X, **options)
