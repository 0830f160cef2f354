"""The first hour: folders of photographs, bad ones among them, several classes, other kinds of output, figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relcompile
from relcompile.errors import InputSpecError
from relcompile.pictures.images import load_image, preprocess
from relcompile.preprocessing import Preprocessing
from tests.cli.test_cli import files, run, small_network
from tests.public_reports.test_maps_that_replace_each_other import explainer, folder

__all__ = ["explainer", "folder"]


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
    (written,) = (folder / "maps").glob("dot.epsilon*.npz")
    arrays = np.load(written)
    assert arrays["relevance"].shape == shape
    assert arrays["target"] == chosen
    code, _, err = run("explain", "x.onnx", "dot.png", "--target", "12345", capsys=capsys)
    assert code == 2
    assert "Traceback" not in err


def test_preprocessing_of_other_channels_is_refused() -> None:
    with pytest.raises(InputSpecError, match="no photograph with 1 channels"):
        relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), preprocessing=GREY)


def test_folders_globs_and_bad_files(explainer: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a" / "bad.jpg").write_text("no photograph")
    code, _, err = run("explain", explainer, ".", "-o", "maps", "--no-png", "--batch", 2, capsys=capsys)
    assert code == 2
    assert "1 of 5 photographs could not be explained:\n  a/bad.jpg: " in err
    assert "explain: 4 of 5" in err
    found = {str(path.relative_to("maps")) for path in Path("maps").rglob("*.npz")}
    assert found == {"cat.z+.npz", "cat.z+.z+.npz", "a/cat.z+.npz", "b/cat.z+.npz"}
    code, _, err = run("explain", explainer, "?/cat.*", "-o", "maps", capsys=capsys)
    assert code == 2
    assert "would have one heatmap" in err
    code, _, err = run("explain", explainer, "c/*.jpg", "-o", "maps", capsys=capsys)
    assert (code, "no photographs in c/*.jpg" in err) == (2, True)


def test_a_batch_explains_as_one_by_one(explainer: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    for batch in (1, 3):
        out = f"batch{batch}"
        assert run("explain", explainer, "[0-2].png", "--batch", batch, "--no-png", "-o", out, capsys=capsys)[0] == 0
    for number in range(3):
        one, three = (np.load(folder / f"batch{batch}" / f"{number}.z+.npz") for batch in (1, 3))
        assert one["target"] == three["target"] == one["output"].argmax()
        np.testing.assert_allclose(one["relevance"], three["relevance"], rtol=1e-5, atol=1e-7)


def test_several_classes(explainer: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", explainer, "a/cat.jpg", "-t", 1, "-t", 3, "-o", "maps", "--no-png", capsys=capsys)[0] == 0
    assert files(folder / "maps") == {"cat.z+.1.npz", "cat.z+.3.npz"}
    assert [int(np.load(f"maps/cat.z+.{k}.npz")["target"]) for k in (1, 3)] == [1, 3]


@pytest.mark.parametrize(("options", "size"), [([], (16, 16)), (["--full-resolution"], (20, 20))])
def test_the_overlay_alone_has_the_pixels_of_the_photograph(
    options: list[str], size: tuple[int, int], explainer: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["a/cat.jpg", "--overlay-only", "--colormap", "PiYG", "-o", "maps", *options]
    assert run("explain", explainer, *arguments, capsys=capsys)[0] == 0
    with Image.open(folder / "maps" / "cat.z+.png") as picture:
        assert picture.size == size
        assert "PiYG" in picture.info["Description"]


def test_an_explainer_with_a_reference(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, x = small_network(), torch.randn(1, 3, 16, 16)
    kind = Preprocessing(None, "bilinear", None, (0.5, 0.4, 0.3), (0.5, 0.5, 0.25))
    relcompile.compile(net, x, rule="deeplift-rescale", reference="input", preprocessing=kind).save("x.onnx")
    code, _, err = run("explain", "x.onnx", "cat.png", capsys=capsys)
    assert (code, "give --reference-image mean, black, blur or a picture's file" in err) == (2, True)
    # The relevance of each is f(x) - f(reference); the mean picture is 0 in units of the input, black is -mean / std.
    black = (-torch.tensor([1.0, 0.8, 1.2])).reshape(1, 3, 1, 1).expand(1, 3, 16, 16)
    for what, reference in {"mean": torch.zeros(1, 3, 16, 16), "black": black, "blur": None, "cat.png": None}.items():
        arguments = ("cat.png", "--reference-image", what, "-o", "maps", "--no-png", "-t", 2)
        assert run("explain", "x.onnx", *arguments, capsys=capsys)[0] == 0
        found = np.load("maps/cat.deeplift-rescale.referenceinput.2.npz")
        expected = 0.0 if what == "cat.png" else float(found["relevance"].sum())
        if reference is not None:
            expected = float(found["output"][2] - net(reference)[0, 2].detach())
        assert found["relevance"].sum() == pytest.approx(expected, abs=1e-4)


def test_what_is_absorbed_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), rule="epsilon", absorbed=True).save("x.onnx")
    code, out, err = run("explain", "x.onnx", "cat.png", "--no-png", "-o", "maps", capsys=capsys)
    assert code == 0, err
    found = np.load("maps/cat.epsilon.npz")
    assert found["absorbed"].sum() + found["relevance"].sum() == pytest.approx(found["output"].max(), abs=1e-3)
    assert f"{found['absorbed'].sum():.4g} of {found['output'].max():.4g}" in out


def test_compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rule in ("z+", "gamma"):
        relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), rule=rule).save(f"{rule}.onnx")
    code, _, err = run("compare", "z+.onnx", "gamma.onnx", "a/cat.jpg", "-o", "figure.png", capsys=capsys)
    assert code == 0, err
    with Image.open("figure.png") as figure:
        assert figure.size[0] > 2 * figure.size[1]
    code, _, err = run("compare", "z+.onnx", "a/cat.jpg", capsys=capsys)
    assert (code, "one map only" in err) == (2, True)
    assert run("compare", "z+.onnx", "a/cat.jpg", "-t", 1, "-t", 2, capsys=capsys)[0] == 0
    assert "cat.compared.png" in files(folder)


def test_a_photograph_in_python(folder: Path) -> None:
    kind = Preprocessing(18, "bicubic", 16, (0.5, 0.4, 0.3), (0.5, 0.5, 0.25))
    relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), preprocessing=kind).save("x.onnx")
    explainer = relcompile.load("x.onnx", device="cpu")
    array, view = preprocess(load_image("cat.png"), kind, (16, 16))
    expected = explainer.explain(array, target=1)
    for photograph in (Path("cat.png"), "cat.png", Image.open("cat.png")):
        found = explainer.explain(photograph, target=1)
        np.testing.assert_array_equal(found.relevance, expected.relevance)
    assert np.array_equal(np.asarray(found.views[0]), np.asarray(view))
    figure = found.plot()
    assert [axis.get_title() for axis in figure.axes[:3]] == ["Photograph", "Relevance", "Overlay"]
    drawn: Any = figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(drawn, expected.relevance[0].sum(0), rtol=1e-4, atol=1e-6)
    assert len(expected.plot().axes) == 2


def test_nothing_is_assumed_in_python(explainer: Path, folder: Path) -> None:
    with pytest.raises(InputSpecError, match="does not say how a photograph becomes its input"):
        relcompile.load(explainer, device="cpu").explain("cat.png", target=1)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An explainer of several targets; each is compiled once."""
    folder, made = tmp_path_factory.mktemp("many"), set[str]()

    def of(target: str) -> Path:
        path = folder / f"{target}.onnx"
        if target not in made:
            relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), target=target, absorbed=True).save(path)
            made.add(target)
        return path

    return of


@pytest.mark.parametrize(
    ("target", "options", "name", "classes"),
    [
        ("3,1-others", (), "classes 3,1.against nothing, others", [3, 1]),
        ("indices", ("--target", 3, "--target", 1), "index, many targets.3,1", [3, 1]),
        ("indices", (), "index, many targets", None),
    ],
)
def test_several_targets_are_a_row_of_maps(
    target: str,
    options: tuple[object, ...],
    name: str,
    classes: list[int] | None,
    many: Callable[[str], Path],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run("explain", many(target), "a/cat.jpg", "-o", "maps", *options, capsys=capsys)
    assert code == 0, err
    stem = "cat.z+." + name.replace(" ", "")
    assert files(folder / "maps") == {f"{stem}.png", f"{stem}.npz"}
    stored = np.load(folder / "maps" / f"{stem}.npz")
    wanted = classes or [int(stored["output"].argmax())]
    assert stored["target"].tolist() == wanted
    assert stored["relevance"].shape == (len(wanted), 3, 16, 16)
    production = relcompile.load(many("indices"), device="cpu")
    x, _ = preprocess(load_image(folder / "a/cat.jpg"), production_preprocessing(), (16, 16))
    first = production.explain(x, target=wanted).relevance[0, 0]
    assert np.abs(stored["relevance"][0] - first).max() <= 1e-5 * np.abs(first).max()
    with Image.open(folder / "maps" / f"{stem}.png") as picture:
        assert picture.width > picture.height
    assert ("class 1 against others" in out) == (target != "indices")


def production_preprocessing() -> Preprocessing:
    from relcompile.preprocessing import assumed

    return assumed(3)[0]


def test_a_row_of_maps_has_no_style(
    many: Callable[[str], Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run("explain", many("indices"), "a/cat.jpg", "--overlay-only", capsys=capsys)
    assert code == 2
    assert "draws a row of maps" in err


def test_each_target_alone(many: Callable[[str], Path]) -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)
    production = relcompile.load(many("3,1-others"), device="cpu")
    explanation = production.explain(x)
    one, other = explanation.each()
    assert [found.chosen(1)[:2] for found in (one, other)] == [(3, "class 3"), (1, "class 1 against others")]
    assert other.relevance.shape == x.shape
    assert other.absorbed is not None
    assert explanation.absorbed is not None
    assert np.array_equal(other.absorbed, explanation.absorbed[:, 1])
    assert one.each() == (one,)
    assert len(explanation.plot(1).axes) >= 2
    with pytest.raises(InputSpecError, match=r"explanation.each\(\)"):
        explanation.chosen()


def test_compare_draws_every_target(
    many: Callable[[str], Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run("compare", many("3,1-others"), "a/cat.jpg", "-o", "row.png", capsys=capsys)
    assert code == 0, err
    assert (folder / "row.png").stat().st_size > 1000
