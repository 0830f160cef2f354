"""Maps of one name: explainers that differ replaced each other's pictures, and a photograph could be lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import relcompile
from relcompile.cli.commands.compile import default_output
from relcompile.cli.options import Method, Question
from tests.cli.test_cli import files, model, run, small_network

__all__ = ["model"]


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explainer") / "model.onnx"
    relcompile.compile(small_network(), torch.randn(1, 3, 16, 16)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: photographs of one name in two folders, and one that is called like a heatmap."""
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    for name in ("cat.png", "cat.z+.png", "a/cat.jpg", "b/cat.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (["a/cat.jpg", "-o", "maps"], {"cat.z+.png", "cat.z+.npz"}),
        (["a/cat.jpg", "-o", "maps", "--target", "3"], {"cat.z+.3.png", "cat.z+.3.npz"}),
        (["a/cat.jpg", "cat.z+.png", "-o", "maps"], {f"cat.z+.{end}" for end in ("png", "npz", "z+.png", "z+.npz")}),
    ],
)
def test_files_say_what_they_explain(
    arguments: list[str], written: set[str], explainer: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run("explain", explainer, *arguments, capsys=capsys)
    assert code == 0, err
    assert files(folder / "maps") == written


REFUSED = {
    "a photograph would be written over": (["cat.png", "cat.z+.png"], "would destroy the input cat.z+.png"),
    "through another path": (["b/cat.jpg", "a/../cat.z+.png", "-o", "b/.."], "would destroy the input a/../cat.z+.png"),
    "two of one name": (["a/cat.jpg", "b/cat.jpg", "-o", "maps"], "a/cat.jpg and b/cat.jpg would have one heatmap"),
    "twice the same": (["cat.png", "cat.png", "-o", "maps"], "cat.png and cat.png would have one heatmap"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_is_destroyed(name: str, explainer: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = REFUSED[name]
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    code, _, err = run("explain", explainer, *arguments, capsys=capsys)
    assert code == 2
    assert message in err
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_a_photograph_beside_its_heatmap(explainer: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "cat.png").read_bytes()
    (folder / "cat.z+.png").unlink()
    assert run("explain", explainer, "cat.png", capsys=capsys)[0] == 0
    assert (folder / "cat.png").read_bytes() == before
    with Image.open(folder / "cat.z+.png") as picture:
        assert picture.size != (20, 20)


# What is told from what: the name of each map, and what its title says.
EXPLAINERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a rule": ({"rule": "gamma=0.5"}, "cat.net.gamma0.5.png", "net · gamma=0.5"),
    "a layer": ({"layers": ("0=flat",)}, "cat.net.z+.0flat.png", "net · z+ · 0=flat"),
    "a target": ({"target": "3"}, "cat.net.z+.class3.png", "net · z+ · class 3"),
    "the best": ({"target": "argmax"}, "cat.net.z+.argmax.png", "net · z+ · argmax"),
    "a place": ({"at": "2"}, "cat.net.z+.at2.png", "net · z+ · at 2"),
    "a model": ({"name": "other"}, "cat.other.z+.png", "other · z+"),
    "a reference": (
        {"rule": "deeplift-rescale", "reference": 0.5},
        "cat.net.deeplift-rescale.reference0.5.png",
        "net · deeplift-rescale · reference 0.5",
    ),
}


@pytest.mark.parametrize("name", EXPLAINERS)
def test_maps_are_called_as_the_explainer_is(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keywords, file, title = EXPLAINERS[name]
    asked: dict[str, Any] = {"name": "net", **keywords}
    relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), **asked).save("x.onnx")
    code, _, err = run("explain", "x.onnx", "a/cat.jpg", "-o", "maps", capsys=capsys)
    assert code == 0, err
    assert "replaced" not in err
    assert file in files(folder / "maps")
    with Image.open(folder / "maps" / file) as picture:
        assert f"{title}  ·  score" in picture.info["Title"]
    assert "what was there is replaced" in run("explain", "x.onnx", "a/cat.jpg", "-o", "maps", capsys=capsys)[2]


@pytest.mark.parametrize(
    ("method", "question", "name"),
    [
        (Method(), Question(), "m.z+.onnx"),
        (Method(), Question(target="argmax"), "m.z+.argmax.onnx"),
        (Method(layers=["features.*=flat"]), Question("3", at="layer4"), "m.z+.features.xflat.3.layer4.onnx"),
        (Method(), Question(absorbed=True, roots=True), "m.z+.absorbed.roots.onnx"),
        (Method("epsilon=0.1"), Question(taps=["a", "b"], start="c"), "m.epsilon0.1.startc.tapa.tapb.onnx"),
    ],
)
def test_other_requests_have_other_names(method: Method, question: Question, name: str) -> None:
    assert default_output(Path("models/m.pt"), method, question) == Path("models") / name


def test_what_is_replaced_is_said(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (model, "--input", "1x3x16x16", "--target", "argmax")
    assert "replaced" not in run(*arguments, capsys=capsys)[2]
    assert "m.z+.argmax" in "".join(files(tmp_path)).replace("model", "m")
    assert "what was there is replaced" in run(*arguments, capsys=capsys)[2]


REPLACE_NOTHING: dict[str, tuple[str, ...]] = {
    "compile": ("{model}", "--input", "1x3x16x16", "--target", "99", "-o", "{model}.onnx"),
    "calibrate": ("calibrate", "{model}", "{model}.npy", "-o", "{model}.onnx"),
    "compare": ("compare", "{model}", "{model}", "cat.jpg", "-o", "{model}.onnx"),
    "report": ("report", "{model}", "-o", "{model}.onnx"),
}


@pytest.mark.parametrize("name", REPLACE_NOTHING)
def test_what_ends_in_an_error_replaces_nothing_and_does_not_say_so(
    name: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = model.with_name("model.pt.onnx")
    there.write_text("before")
    code, _, err = run(*(argument.format(model=model) for argument in REPLACE_NOTHING[name]), capsys=capsys)
    assert (code, there.read_text()) == (2, "before")
    assert "replaced" not in err
