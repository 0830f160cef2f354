"""Units of preprocessing: what is impossible, what is in other units, and what happens to a photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import relcompile
from relcompile.errors import CalibrationError, InputSpecError, MetadataError
from relcompile.pictures.photographs import Photographs
from relcompile.preprocessing import IMAGENET, Preprocessing
from tests.cli.test_cli import files, run, small_network

CAFFE, UNIT = ((123.0, 116.0, 103.0), (58.0, 57.0, 57.0)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ONES = (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("mean", "std", "scale"),
    [
        (*UNIT, 255.0),
        (*CAFFE, 1.0),
        ((103.9, 116.8, 123.7), ONES, 1.0),
        ((0.0, 0.0, 0.0), ONES, 255.0),
        ((0.0, 0.0, 0.0), ONES, 1.0),
        ((0.0, 0.0, 0.0), (1 / 255,) * 3, 255.0),
        (ONES, ONES, 127.5),
        ((127.5,), (127.5,), 1.0),
    ],
)
def test_units_that_people_use(mean: tuple[float, ...], std: tuple[float, ...], scale: float) -> None:
    found = Preprocessing(None, "bilinear", None, mean, std, scale=scale)
    low, high = found.bounds
    assert all(0.1 <= b - a <= 255.1 for a, b in zip(low, high, strict=True))


@pytest.mark.parametrize(
    ("mean", "std", "scale", "message"),
    [
        (*CAFFE, 255.0, r"mean 123, 116, 103 is not one of pixels, which scale=255 makes 0..1; .* then give scale=1"),
        (UNIT[0], CAFFE[1], 255.0, r"std 58, 57, 57 does not fit .* changes by 0.0172, .* give scale=1"),
        (*UNIT, 1.0, r"mean 0.485, 0.456, 0.406 is not one of pixels, .* makes 0..255; .* give scale=255"),
        (CAFFE[0], UNIT[1], 1.0, r"std 0.229, .* changes by 1.11e\+03, .* give scale=255"),
        ((-0.5, -0.5, -0.5), ONES, 255.0, r"mean -0.5 is negative: it is subtracted"),
        ((0.5, 1.5, 0.5), ONES, 255.0, r"mean 0.5, 1.5, 0.5 is not one of pixels"),
    ],
)
def test_values_in_the_other_units(mean: Any, std: Any, scale: float, message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        Preprocessing(None, "bilinear", None, mean, std, scale=scale)


@pytest.mark.parametrize(
    ("resize", "crop", "mean", "shape", "message"),
    [
        (224, 256, UNIT[0], (1, 3, 256, 256), "crop 256 is larger than resize 224"),
        (256, None, UNIT[0], (1, 3, 224, 224), "has no side of 256, which resize=256 makes"),
        (256, 224, UNIT[0], (1, 3, 256, 256), "is not 224 x 224, which crop=224"),
        (None, None, (0.5,), (1, 3, 224, 224), "no photograph with 1 channels"),
        (None, None, UNIT[0], (1, 1, 224, 224), "no photograph with 3 channels"),
        (None, None, UNIT[0], (1, 10), "no photograph with 3 channels"),
    ],
)
def test_what_no_photograph_becomes(resize: Any, crop: Any, mean: Any, shape: Any, message: str) -> None:
    with pytest.raises((InputSpecError, MetadataError), match=message):
        Preprocessing(resize, "bilinear", crop, mean, mean).require_input({"x": shape})


REFUSED: dict[str, tuple[list[str], str]] = {
    "--mean alone": (["--mean", "0.5,0.5,0.5"], "--std is missing"),
    "--std alone": (["--std", "0.5,0.5,0.5"], "--mean is missing"),
    "sizes alone": (["--resize", "20", "--crop", "16"], "--mean is missing"),
    "other units": (["--mean", "123,116,103", "--std", "58,57,57"], "then give scale=1 (--scale 1)"),
    "crop above resize": (
        ["--mean", "0,0,0", "--std", "1,1,1", "--resize", "16", "--crop", "20"],
        "larger than resize",
    ),
    "one mean": (["--mean", "0", "--std", "1"], "no photograph with 1 channels"),
    "another size": (["--mean", "0,0,0", "--std", "1,1,1", "--resize", "20"], "no side of 20"),
    "an order of one channel": (["--mean", "0", "--std", "1", "--channels", "BGR"], "has no order"),
    "two references": (["--reference", "0", "--reference-image", "black"], "give one of them"),
    "a picture of no units": (["--rule", "deeplift-rescale", "--reference-image", "black"], "how a picture becomes"),
    "bounds nobody takes": (["--bounds", "0,1"], "rule z+ takes no bounds"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_compile_refuses(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = REFUSED[name]
    torch.save(small_network(), tmp_path / "model.pt")
    code, _, err = run(tmp_path / "model.pt", "--input", "1x3x16x16", *arguments, capsys=capsys)
    assert (code, message in err) == (2, True), err
    assert files(tmp_path) == {"model.pt"}


def test_everybody_says_what_happens_to_a_photograph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(small_network(), tmp_path / "model.pt")
    Image.new("RGB", (30, 20), "grey").save(tmp_path / "grey.png")
    kind = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
    sizes = {
        ("--resize", "20", "--crop", "16"): "shorter side to 20 (bilinear), centre of 16 x 16",
        (): "squashed to 16",
    }
    for options, words in sizes.items():
        _, out, _ = run(
            tmp_path / "model.pt", "--input", "1x3x16x16", *kind, *options, "-o", tmp_path / "x.onnx", capsys=capsys
        )
        told = [out, run("inspect", tmp_path / "x.onnx", capsys=capsys)[1]]
        told += [run("explain", tmp_path / "x.onnx", tmp_path / "grey.png", "-o", tmp_path, capsys=capsys)[2]]
        for text in told:
            plain = " ".join(text.replace("│", " ").split())
            assert words in plain
            assert "black is -2, white 2" in plain


def test_references_are_pictures(tmp_path: Path) -> None:
    photographs = Photographs(8, 8, IMAGENET)
    black = (0 - np.array(UNIT[0])) / np.array(UNIT[1])
    np.testing.assert_allclose(photographs.reference("black")[0, :, 3, 5], black, rtol=1e-6)
    assert not photographs.reference("mean").any()
    Image.new("RGB", (5, 9), (51, 102, 204)).save(tmp_path / "colour.png")
    colour = (np.array([0.2, 0.4, 0.8]) - np.array(UNIT[0])) / np.array(UNIT[1])
    np.testing.assert_allclose(photographs.reference(str(tmp_path / "colour.png"))[0, :, 0, 0], colour, rtol=1e-5)
    dot = Image.new("RGB", (64, 64))
    dot.putpixel((32, 32), (255, 255, 255))
    large = Photographs(64, 64, IMAGENET)
    assert large.reference("blur", dot).max() < large.read(dot).array.max() / 10


def test_a_calibration_knows_its_preprocessing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    torch.save(small_network(), tmp_path / "model.pt")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    patterns, shape = tmp_path / "p.safetensors", ("--input", "1x3x16x16")
    kind = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
    model = tmp_path / "model.pt"
    assert run("calibrate", model, tmp_path / "photos", *shape, *kind, "-o", patterns, capsys=capsys)[0] == 0
    wanted = Preprocessing(None, "bilinear", None, (0.5,) * 3, (0.25,) * 3)
    found = relcompile.Calibration.load(patterns)
    assert found.preprocessing == wanted
    x = torch.randn(1, 3, 16, 16)
    explainer = relcompile.compile(small_network(), x, rule="patternnet", calibration=found)
    assert explainer.metadata.preprocessing == wanted
    with pytest.raises(CalibrationError, match="the calibration was made with"):
        relcompile.compile(small_network(), x, rule="patternnet", calibration=found, preprocessing=IMAGENET)
    np.save(tmp_path / "data.npy", np.zeros((3, 3, 16, 16), np.float32))
    code, _, err = run("calibrate", model, tmp_path / "data.npy", *shape, *kind, "-o", patterns, capsys=capsys)
    assert (code, "not photographs" in err) == (2, True)
