"""No name in a model is more than a name: none is run, each is found, whatever it is."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from torch import nn

import relcompile
from relcompile.cli import views
from relcompile.cli.main import main
from relcompile.files.records import LayerRecord
from tests.frontend.names import MARKER, NAMES, PLAIN, PROGRAM, PROGRAMS, X, file_with, net_with

EXAMPLES = settings(
    max_examples=2,
    deadline=None,
    suppress_health_check=(HealthCheck.function_scoped_fixture, HealthCheck.too_slow),
)
MANY = st.lists(NAMES, min_size=7, max_size=14)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """In a folder where the marker would be seen, of a test or of any of its examples."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob(MARKER))


def run(*arguments: str) -> int:
    """The exit code of the command line."""
    try:
        main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@contextmanager
def terminal() -> Generator[list[str]]:
    """What the views print."""
    shown = [io.StringIO(), io.StringIO()]
    texts = list[str]()
    with pytest.MonkeyPatch.context() as patch:
        for name, file in zip(("_out", "_err"), shown, strict=True):
            patch.setattr(views, name, Console(file=file, force_terminal=False, width=400))
        yield texts
    texts += [file.getvalue() for file in shown]


def control_characters(text: str) -> set[str]:
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}


# The attack, in each place that a name has.


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU()).eval()


def child(model: nn.Sequential) -> None:
    model._modules = {PROGRAM: model[0], "1": model[1], "2": model[2]}


def parameter(model: Any) -> None:
    model[0]._parameters[PROGRAM] = model[0].weight


def plain_tensor(model: nn.Sequential, parent: bool = False) -> None:
    mean = model[1]._buffers.pop("running_mean")
    vars(model if parent else model[1])[PROGRAM] = mean  # it is used, and torch calls it by its first name
    vars(model[1])["running_mean"] = mean


ATTACKS: dict[str, Callable[[Any], None]] = {
    "child": child,
    "parameter": parameter,
    "buffer": lambda model: model[1]._buffers.update({PROGRAM: torch.ones(3)}),
    "alias of the parent": lambda model: model._parameters.update({PROGRAM: model[0].weight}),
    "plain tensor": plain_tensor,
    "plain tensor of the parent": lambda model: plain_tensor(model, parent=True),
}


@pytest.mark.parametrize("place", ATTACKS)
def test_a_name_that_is_a_program_is_not_run(place: str) -> None:
    model = net()
    ATTACKS[place](model)
    torch.save(model, "evil.pt")
    assert run("evil.pt", "--input", "1x4") == 0
    assert run("inspect", "evil.z+.onnx") == 0
    assert not Path(MARKER).exists()


# Any names, in all places at once.


@EXAMPLES
@given(MANY)
@example(PROGRAMS)
def test_python_compiles_and_calibrates_any_names(names: list[str]) -> None:
    model = net_with(names)
    expected = model(X).detach()
    state = {name: dict(vars(module)) for name, module in model.named_modules()}
    explainer = relcompile.compile(model, X, rule="epsilon", target=0)
    torch.testing.assert_close(explainer(X)[0], expected)
    assert len(explainer.metadata.layers) >= len(list(model.children()))
    relcompile.calibrate(net_with(names[:3]), [X])
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == state
    assert not Path(MARKER).exists()


@EXAMPLES
@given(MANY)
@example(PROGRAMS)
def test_the_command_line_takes_files_with_any_names(names: list[str]) -> None:
    model = file_with(names)
    torch.save(model, "model.pt")
    np.save("data.npy", X.numpy())
    with terminal() as texts:
        assert run("model.pt", "--input", "1x4", "--rule", "epsilon") == 0
        assert run("inspect", "model.epsilon.onnx") == 0
        assert run("calibrate", "model.pt", "data.npy", "--input", "1x4") in (0, 2)  # 2: two layers have one name
        assert run("model.pt", "--input", "1x4", "--at", names[0]) in (0, 2)
        assert run("model.pt", "--input", "1x5") == 2
    assert not control_characters("".join(texts))
    assert not Path(MARKER).exists()


@EXAMPLES
@given(st.lists(NAMES, min_size=10, max_size=10, unique=True))
def test_explain_shows_any_names(names: list[str]) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    layers._modules = dict(zip(names, layers, strict=False))
    relcompile.compile(layers, torch.randn(2, 3, 8, 8), class_names=names).save("net.onnx")
    Image.new("RGB", (8, 8), (200, 30, 3)).save("photo.png")
    with terminal() as texts:
        assert run("explain", "net.onnx", "photo.png") == 0
        assert run("inspect", "net.onnx") == 0
    assert not control_characters("".join(texts))
    assert not Path(MARKER).exists()


# Names are kept.


@pytest.mark.parametrize("name", ["class", "in", "None", 'a"b', "a\\b", "it's", "a, b; c", "m0", "größe", "[/y]"])
def test_layers_of_any_name_are_found(name: str) -> None:
    model = nn.ModuleDict({name: nn.Linear(4, 3), "last": nn.Linear(3, 2)})
    model.forward = lambda x: model["last"](model[name](x).relu())  # type: ignore[method-assign]
    explainer = relcompile.compile(model, X, at=name, target=0)
    assert explainer(X)[1].shape == (2, 3)
    assert explainer.metadata.at == explainer.metadata.layers[0].name == name
    assert set(relcompile.calibrate(model, [X]).patterns) == {name, "last"}


def test_composites_find_layers_by_their_names() -> None:
    torch.save(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), "model.pt")
    model = torch.load("model.pt", weights_only=False)
    model._modules = dict(zip(("class", "in", "head"), model._modules.values(), strict=True))
    torch.save(model, "model.pt")
    assert run("model.pt", "--input", "1x4", "--layer", "class=flat", "-o", "out.onnx") == 0
    layers = relcompile.load("out.onnx").metadata.layers
    assert [layer.name for layer in layers] == ["class", "in", "head"]
    assert layers[0].rule.startswith("Flat")


def test_control_characters_of_a_name_are_spelt_out() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    model._modules = {"a\x1b[2J\nb": model[0], "c": model[1]}
    assert relcompile.compile(model, X).metadata.layers[0].name == r"a\x1b[2J\nb"


def test_a_shared_part_has_the_name_it_is_called_by() -> None:
    model = nn.Module()
    model.a = model.b = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model.forward = lambda x: model.b(model.a(x))  # type: ignore[method-assign]
    names = [layer.name for layer in relcompile.compile(model, X, target=0).metadata.layers]
    assert names == ["a.0", "a.1", "b.0", "b.1"]


class Restless(nn.Module):
    """Writes to itself in forward: an attribute, and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.seen, self.last = nn.Linear(4, 3), [], None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.fc(x)
        self.seen.append(self.last)
        return self.last


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_is_afterwards_what_it_was() -> None:
    model = nn.Sequential(Restless(), nn.ReLU()).train()
    model[0].forward = model[0].forward  # one that is set on the instance
    before = [dict(vars(module)) for module in model.modules()]
    relcompile.frontend.canonical.captured_graph(model, {"input": X})
    assert [dict(vars(module)) for module in model.modules()] == before
    assert model[0].seen == []


def test_a_buffer_that_the_forward_replaces_is_named() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("class", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            setattr(self, "class", getattr(self, "class") + 1)
            return x * 2

    with pytest.raises(relcompile.RelcompileError, match=r"changes its own buffers in forward \(0\.class\)"):
        relcompile.compile(nn.Sequential(Counter(), nn.Linear(4, 3)), X)


@pytest.mark.parametrize("text", [*PROGRAMS, *PLAIN, "[/y]", "[/]", "[bold", "a\\"])
def test_no_view_reads_markup_or_passes_control_characters(text: str) -> None:
    with terminal() as texts:
        views.error(text)
        views.note(text)
        views.layers([LayerRecord(text, text, text, text, 1)])
        views.summary([LayerRecord(text, text, text, text, 1)])
        views.facts("facts", {"rule": text})
        views.classes(text, [(text, 1.0)])
    assert not control_characters("".join(texts))
    if text.isprintable():
        assert "".join(texts).count(text) >= 2
