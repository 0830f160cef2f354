"""Photographs in, heatmaps out."""

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from relcompile.errors import ExportError, InputSpecError
from relcompile.pictures.heatmap import draw_heatmap, heatmap_title, save_heatmap
from relcompile.pictures.images import load_image, preprocess
from relcompile.preprocessing import Preprocessing

PLAIN = Preprocessing(None, "bilinear", None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
RED = (200, 100, 50)


def photograph(width: int = 40, height: int = 30) -> Image.Image:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 5 % 256, y * 7 % 256, (x + y) % 256], axis=-1).astype(np.uint8))


def blob(height: int = 24, width: int = 24) -> np.ndarray:
    """Positive relevance in the upper left, negative in the lower right: (3, H, W)."""
    y, x = np.mgrid[:height, :width]
    signed = np.exp(-((x - 6) ** 2 + (y - 6) ** 2) / 18) - np.exp(-((x - 17) ** 2 + (y - 17) ** 2) / 18)
    return np.stack([signed, signed * 0.5, signed * 0.25]).astype(np.float32)


def border_is_white(drawn: Image.Image) -> bool:
    """No text is cut off."""
    grey = np.asarray(drawn.convert("L"))
    return min(line.min() for line in (grey[0], grey[-1], grey[:, 0], grey[:, -1])) == 255


def test_the_exif_orientation_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to see it upright
    image = photograph()
    image.save(tmp_path / "turned.png", exif=exif)
    upright = load_image(tmp_path / "turned.png")
    assert upright.size == (30, 40)
    np.testing.assert_array_equal(np.asarray(upright), np.rot90(np.asarray(image), k=-1))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_8_bit_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = photograph().convert(mode)
    image.save(tmp_path / "photo.tiff")
    read = load_image(tmp_path / "photo.tiff")
    assert (read.mode, read.size) == ("RGB", (40, 30))
    np.testing.assert_array_equal(np.asarray(read), np.asarray(image.convert("RGB")))


def make_image(kind: str, path: Path) -> None:
    encoded = io.BytesIO()
    photograph().save(encoded, "png")
    data = encoded.getvalue()
    match kind:
        case "folder":
            path.mkdir()
        case "text" | "truncated":
            path.write_bytes(b"no photograph" if kind == "text" else data[: len(data) // 2])
        case "16 bit":
            Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(path, "png")
        case "float":
            Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(path, "tiff")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no such file"),
        ("folder", "cannot be read"),
        ("text", "cannot be read"),
        ("truncated", "cannot be read"),
        ("16 bit", "more than 8 bits a channel"),
        ("float", "more than 8 bits a channel"),
    ],
)
def test_an_unreadable_image_is_refused_by_name(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "photo.img"
    make_image(kind, path)
    with pytest.raises(InputSpecError, match=message) as caught:
        load_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        (PLAIN, (200 / 255, 100 / 255, 50 / 255)),
        (
            Preprocessing(None, "bicubic", None, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), scale=100.0),
            (3.8, 3.2, 0.1),
        ),
        (Preprocessing(None, "bilinear", None, (1, 2, 3), (1, 1, 1), "BGR", 1.0), (49.0, 98.0, 197.0)),
        (Preprocessing(None, "bilinear", None, (1,), (2,), scale=1.0), (61.5,)),  # 0.299 R + 0.587 G + 0.114 B = 124
    ],
    ids=["plain", "scale, mean and std", "BGR", "grey"],
)
def test_channels_are_ordered_scaled_and_normalised(preprocessing: Preprocessing, expected: tuple[float, ...]) -> None:
    array, view = preprocess(Image.new("RGB", (6, 4), RED), preprocessing, (4, 6))
    assert (array.shape, array.dtype, array.flags.c_contiguous) == ((1, len(expected), 4, 6), np.float32, True)
    np.testing.assert_allclose(array, np.broadcast_to(np.array(expected)[:, None, None], array.shape), rtol=1e-6)
    assert view.getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("size", "resize", "crop", "box"),
    [
        ((40, 30), None, None, (0, 0, 40, 30)),
        ((40, 30), None, 20, (10, 5, 30, 25)),
        ((41, 30), 30, 15, (13, 8, 28, 23)),
        ((30, 30), 30, None, (0, 0, 30, 30)),
    ],
)
def test_the_crop_is_the_centre_and_the_view_is_what_the_model_sees(
    size: tuple[int, int], resize: int | None, crop: int | None, box: tuple[int, int, int, int]
) -> None:
    image = photograph(*size)
    height_width = (box[3] - box[1], box[2] - box[0])
    preprocessing = Preprocessing(resize, "bilinear", crop, (0.0,) * 3, (1.0,) * 3, scale=1.0)
    array, view = preprocess(image, preprocessing, height_width)
    np.testing.assert_array_equal(np.asarray(view), np.asarray(image.crop(box)))
    np.testing.assert_array_equal(array[0].transpose(1, 2, 0), np.asarray(view))


@pytest.mark.parametrize(("size", "resized"), [((41, 30), (21, 16)), ((30, 41), (16, 21)), ((20, 20), (16, 16))])
def test_resizing_sets_the_shorter_side_and_truncates_the_longer(
    size: tuple[int, int], resized: tuple[int, int]
) -> None:
    image = photograph(*size)
    preprocessing = Preprocessing(16, "bicubic", None, (0.0,) * 3, (1.0,) * 3)
    _, view = preprocess(image, preprocessing, (resized[1], resized[0]))
    np.testing.assert_array_equal(np.asarray(view), np.asarray(image.resize(resized, Image.Resampling.BICUBIC)))


def test_preprocessing_without_sizes_takes_the_whole_photograph() -> None:
    _, view = preprocess(photograph(40, 30), PLAIN, (16, 16))
    expected = photograph(40, 30).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(np.asarray(view), np.asarray(expected))


@pytest.mark.parametrize(
    ("resize", "crop", "message"),
    [
        (16, None, r"40x30 photograph 21x16 .* takes 16x16"),
        (None, 20, "takes 16x16"),
        (None, 32, "too small"),
    ],
)
def test_a_photograph_that_does_not_become_the_input_is_refused(
    resize: int | None, crop: int | None, message: str
) -> None:
    preprocessing = Preprocessing(resize, "bilinear", crop, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(InputSpecError, match=message):
        preprocess(photograph(), preprocessing, (16, 16))


def test_the_title_says_what_was_explained() -> None:
    title = heatmap_title("tiger cat (282)", 9.24812, np.full((3, 2, 2), 0.5, np.float16))
    assert title == "tiger cat (282)  ·  score 9.248  ·  sum of relevance 6"


def test_red_speaks_for_blue_against_and_white_is_nothing(tmp_path: Path) -> None:
    save_heatmap(tmp_path / "heat.png", blob(), None, "")
    pixels = np.asarray(Image.open(tmp_path / "heat.png").convert("RGB")).astype(int)
    # The colour bar on the right is left out.
    map_only = pixels[:, : int(pixels.shape[1] * 0.7)]
    red = np.argwhere(map_only[..., 0] - map_only[..., 2] > 90)
    blue = np.argwhere(map_only[..., 2] - map_only[..., 0] > 60)
    assert min(len(red), len(blue)) > 1000
    assert (red.mean(axis=0) < blue.mean(axis=0) - 50).all()  # upper left, lower right
    corner = map_only[red[:, 0].min() + 20, blue[:, 1].max()]  # upper right: no relevance
    assert corner.min() > 240


@pytest.mark.parametrize("image", [None, photograph().convert("L")], ids=["no photograph", "photograph"])
@pytest.mark.parametrize(
    "relevance",
    [
        blob()[0],
        blob() * 1e-12,
        np.zeros((3, 5, 5), np.float32),
        np.eye(40, dtype=np.float64)[:1],
        np.full((1, 1, 1), -2.0),
        np.pad(np.ones((1, 1)), 30),
    ],
)
def test_every_map_can_be_drawn(tmp_path: Path, relevance: np.ndarray, image: Image.Image | None) -> None:
    save_heatmap(tmp_path / "heat.png", relevance, image, "cost $\\frac{$ 5 \t雨\n" * 40)
    with Image.open(tmp_path / "heat.png") as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 200
        assert border_is_white(drawn)
    assert [entry.name for entry in tmp_path.iterdir()] == ["heat.png"]


@pytest.mark.parametrize(
    ("relevance", "sentence"),
    [
        (np.linspace(-1, 1, 10_001)[None], "±0.995, the 99.5th percentile of |relevance|; the largest is 1."),
        (np.array([[0.0, 0.25]]), "Colours end at ±0.249"),
        (np.pad(np.full((1, 1), -3.0), 30), "Colours end at ±3, the largest |relevance|."),
        (np.zeros((2, 2)), "All relevance is zero."),
    ],
)
def test_the_file_says_where_the_colours_end(tmp_path: Path, relevance: np.ndarray, sentence: str) -> None:
    save_heatmap(tmp_path / "heat", relevance, None, "Katze · 雨")
    with Image.open(tmp_path / "heat") as drawn:
        assert border_is_white(drawn)
        assert drawn.info["Title"] == "Katze · 雨"
        assert sentence in drawn.info["Description"]


@pytest.mark.parametrize(
    ("relevance", "message"),
    [
        (np.ones(4), r"the relevance is \(4,\), not \(C, H, W\)"),
        (np.ones((1, 3, 4, 4)), r"the relevance is \(1, 3, 4, 4\)"),
        (np.ones((3, 0, 4)), r"the relevance is \(3, 0, 4\)"),
        (np.array([[1.0, np.nan], [np.inf, 0.0]]), "2 of 4 relevance values are NaN or infinite"),
    ],
)
def test_a_map_that_cannot_be_drawn_is_refused(tmp_path: Path, relevance: np.ndarray, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        save_heatmap(tmp_path / "heat.png", relevance, None, "")
    assert list(tmp_path.iterdir()) == []


def test_a_map_with_structure_has_an_outline_and_a_constant_has_none(tmp_path: Path) -> None:
    maps = {"flat": np.ones((60, 60)), "peaked": blob(60, 60), "sparse": np.pad(np.ones((4, 4)), 28)}
    drawn = []
    for name, relevance in maps.items():
        save_heatmap(tmp_path / name, relevance, Image.new("RGB", (60, 60), "white"), "")
        pixels = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
        overlay = pixels[150:650, int(pixels.shape[1] * 0.61) : int(pixels.shape[1] * 0.87)]
        drawn.append(int((overlay.max(axis=-1) < 40).sum()))
    assert drawn[0] == 0  # a constant has no outline
    assert drawn[1] > 200
    assert drawn[2] > 50


def test_a_map_in_a_figure_of_ones_own_is_centred_at_zero() -> None:
    figure = Figure()
    axes = figure.subplots()
    draw_heatmap(axes, blob() * 3, "a rule")
    drawn, bar = axes.images[0], figure.axes[1]
    low, high = drawn.get_clim()
    assert low == -high < 0
    assert high == pytest.approx(np.percentile(np.abs(blob().astype(float).sum(0) * 3), 99.5))
    np.testing.assert_allclose(np.asarray(drawn.get_array()), blob().astype(float).sum(0) * 3, rtol=1e-6)
    assert list(bar.get_yticks()) == [low, 0, high]
    assert axes.get_title() == "a rule"
    with pytest.raises(ExportError, match="a rule: the relevance is"):
        draw_heatmap(axes, np.zeros(3), "a rule")
