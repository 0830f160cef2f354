"""`relcompile explain` as a user meets it: which files it writes, for which models, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import relcompile
from tests.test_cli import files, run, small_network


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
