"""`relcompile explain` as a user meets it: which files it writes, for which models, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relcompile
from relcompile.cli.explain_command import photograph_input
from relcompile.errors import InputSpecError
from relcompile.metadata import Preprocessing
from tests.cli.test_cli import files, run, small_network


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


class Segmenter(nn.Module):
    """Scores (N, 3, H, W) with the largest single value in class 1, and the largest sum in class 2."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Conv2d(3, 3, 1)
        nn.init.zeros_(self.scores.weight)
        self.get_parameter("scores.bias").data = torch.tensor([0.0, 1.0, 2.0])
        self.scores.weight.data[1, 0] = torch.tensor([[30.0]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(torch.relu(x - 2.0))


class Regressor(nn.Module):
    """One number (N,) for a grey photograph (N, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(x.flatten(1)).squeeze(1)


GREY = Preprocessing(None, "bilinear", None, (0.5,), (0.5,))
# model, shape of its input, options of compile, class that is explained
KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any], int]] = {
    "segmentation": (Segmenter, (3, 12, 12), {}, 2),
    "segmentation, the best of every place": (Segmenter, (3, 12, 12), {"target": "argmax"}, -1),
    "regression": (Regressor, (1, 8, 8), {}, 0),
    "regression, the best": (Regressor, (1, 8, 8), {"target": "argmax", "preprocessing": GREY}, 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_all_kinds_of_output(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, shape, options, chosen = KINDS[name]
    torch.manual_seed(0)
    relcompile.compile(build(), torch.randn(1, *shape), rule="epsilon", **options).save(folder / "x.onnx")
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(folder / "dot.png")
    code, out, err = run("explain", "x.onnx", "dot.png", "-o", "maps", capsys=capsys)
    assert code == 0, err
    assert ("class 2" in out) == ("segmentation" in name)
    arrays = np.load(folder / "maps" / "dot.epsilon.npz")
    assert arrays["relevance"].shape == shape
    assert arrays["target"] == chosen
    code, _, err = run("explain", "x.onnx", "dot.png", "--target", "12345", capsys=capsys)
    assert code == 2
    assert "Traceback" not in err


def test_preprocessing_of_other_channels_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), preprocessing=GREY).save(folder / "x.onnx")
    code, _, err = run("explain", "x.onnx", "cat.png", capsys=capsys)
    assert code == 2
    assert "3 channels, the preprocessing of the file 1" in err


def test_an_input_of_no_fixed_size_takes_no_photograph(explainer: Path) -> None:
    metadata = relcompile.load(explainer, device="cpu").metadata
    free = replace(metadata.inputs[0], shape=("batch", 3, "height", "width"))
    with pytest.raises(InputSpecError, match="not one photograph"):
        photograph_input(replace(metadata, inputs=(free,)))
