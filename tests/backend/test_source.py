"""An explainer as Python: what is printed computes the same, whatever names it bears."""

from __future__ import annotations

import ast
import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import relcompile
from tests.cli.test_cli import run
from tests.frontend.names import MARKER, PROGRAMS
from tests.question.networks import TARGET, X, needs, residual

Capture = pytest.CaptureFixture[str]


def executed(source: str, tensors: Mapping[str, Any]) -> nn.Module:
    space: dict[str, Any] = {}
    exec(compile(source, "explainer.py", "exec"), space)
    return space["Explainer"](tensors)


def tensors_of(explainer: relcompile.Explainer) -> dict[str, torch.Tensor]:
    module = explainer.graph_module
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@pytest.mark.parametrize("rule", ["z+", "epsilon-gamma-box", "gradient", "deeplift-revealcancel", "grad-cam"])
def test_the_source_computes_the_same(rule: str) -> None:
    explainer = relcompile.compile(residual(), X, rule=rule, target="3,1", **needs(rule))
    again = executed(explainer.python(), tensors_of(explainer))(X)
    for actual, expected in zip(again, explainer(X), strict=True):
        assert torch.equal(actual, expected)


def test_free_sizes_have_names() -> None:
    source = relcompile.compile(residual(), X, rule="epsilon", target="indices").python()
    assert "# float64[batch, questions, 5]" in source
    assert "# float64[questions*batch, 4, 4, 4]" in source


def test_it_is_laid_out_by_layers() -> None:
    source = relcompile.compile(residual(), X, rule="z+").python()
    assert source.startswith('"""z+"""\n')
    places = [source.index(f"\n        # {layer}\n") for layer in ("stem", "branch.0", "joined", "pool", "head")]
    assert places == sorted(places)
    assert source.rindex("# stem\n") > source.rindex("# head\n")  # and back again
    assert "def forward(self, x, target):" in source
    assert "# float64[batch, 4, 8, 8]" in source


class Hostile(nn.Module):
    """A layer, an input and a module of a name that is a program."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name.replace(".", "_"), nn.Linear(4, 3))
        self.register_buffer(name.replace(".", "_") + "b", torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (layer,), (shift,) = self.children(), self.buffers()
        return layer(x).relu() + shift


@pytest.mark.parametrize("name", PROGRAMS[::3])
def test_names_are_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x = torch.ones(2, 4)
    explainer = relcompile.compile(Hostile(name), x, rule="epsilon", name=name, target=0)
    source = explainer.python()
    assert source.isascii()
    assert all(sign.isprintable() or sign == "\n" for sign in source)
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}
    assert all(
        call.startswith(("torch.ops.aten.", "operator.")) or call in ("super", "super().__init__", "dict")
        for call in calls
    )
    assert torch.equal(executed(source, tensors_of(explainer))(x)[1], explainer(x)[1])
    assert not (tmp_path / MARKER).exists()


def test_a_file_is_inspected_and_run(tmp_path: Path, capsys: Capture) -> None:
    explainer = relcompile.compile(residual(), X, rule="z+", name="model")
    explainer.save(tmp_path / "e.pt2")
    code, out, err = run("inspect", tmp_path / "e.pt2", "--python", capsys=capsys)
    assert (code, out) == (0, explainer.python()), err
    program = torch.export.load(tmp_path / "e.pt2")
    found = executed(out, {**program.state_dict, **program.constants})(X, TARGET)
    assert torch.equal(found[1], explainer(X, TARGET)[1])


def archive(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for name, data in members.items():
            made.writestr(f"e/extra/{name}.py", data)
    return content.getvalue()


def stream_of(byte: bytes) -> bytes:
    """What is to be unpacked is nothing but this."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("e/extra/relcompile.py", b"x = 1")
    packed = zlib.compress(b"x = 1", wbits=-15)
    return content.getvalue().replace(packed, byte * len(packed))


WRONG: dict[str, tuple[bytes, str]] = {
    "no archive": (b"nothing", "holds no Python source"),
    "no source": (archive(other=b"x = 1"), "holds no Python source"),
    "no text": (archive(relcompile=b"\xff"), "holds no Python source"),
    "a damaged stream": (stream_of(b"\xff"), "holds no Python source"),
    "a sequence for terminals": (archive(relcompile=b"x = 1 \x1b[2J"), "control characters"),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_without_a_source(name: str, tmp_path: Path, capsys: Capture) -> None:
    content, message = WRONG[name]
    (tmp_path / "e.pt2").write_bytes(content)
    code, out, err = run("inspect", tmp_path / "e.pt2", "--python", capsys=capsys)
    assert (code, out) == (2, "")
    assert message in err
