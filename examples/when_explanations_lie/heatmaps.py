"""Figures 1a and 6a: one photograph, and what rules say of it while the network's weights become random.

python -m examples.when_explanations_lie.heatmaps --output cascade.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from examples.when_explanations_lie.pretrained import PRETRAINED, pretrained
from examples.when_explanations_lie.sanity import asked
from relcompile import Options
from relcompile.evaluation import Settings, Subject
from relcompile.evaluation.trial import Bench, Trial
from relcompile.files.paths import atomic_path
from relcompile.pictures.heatmap import draw_heatmap

RULES = ("guided-backprop", "rectgrad", "alpha1beta0", "alpha2beta1", "lrp-cmp-a1b0", "deeplift-rescale", "gradient")
Row = dict[str, NDArray[np.float32]]


def maps(subject: Subject, rules: dict[str, Options], steps: int) -> dict[str, Row]:
    """Relevance (C, H, W) of the first picture by rule, and by the lowest layer with random weights."""
    bench = Bench(subject.part(0, 1), Settings(steps=steps))
    images, targets = bench.subject.images, bench.subject.targets
    found = dict[str, Row]()
    for name, options in rules.items():
        trial = Trial(bench, name, options)
        found[name] = {"trained": trial.own[0].numpy()}
        for layer, weights in bench.random_weights.items():
            found[name][layer] = trial.relevance(images, targets, weights)[0].numpy()
    return found


def draw(path: Path, image: NDArray[np.float32], rows: dict[str, Row], title: str) -> None:
    """A row for every rule, each map with its own colours around zero."""
    columns = list(next(iter(rows.values())))
    figure = Figure(figsize=(1.6 * (1 + len(columns)), 1.75 * len(rows) + 0.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    axes: Any = figure.subplots(len(rows), 1 + len(columns), squeeze=False)
    for axis in axes.flatten():
        axis.set_axis_off()
    for line, (rule, row) in zip(axes, rows.items(), strict=True):
        line[0].imshow((image - image.min()) / np.ptp(image))
        line[0].set_title(rule, fontsize=8)
        for axis, (layer, relevance) in zip(line[1:], row.items(), strict=True):
            draw_heatmap(axis, relevance, layer)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def main(arguments: Sequence[str] | None = None) -> dict[str, Row]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(PRETRAINED), default="squeezenet")
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--size", type=int, default=224, help="side of the photograph")
    parser.add_argument("--steps", type=int, default=6, help="layers down to which weights become random")
    parser.add_argument("--output", type=Path, default=Path("cascade.png"), help="the picture to write")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    net = pretrained(options.network, options.size)
    rules = asked(options.rules, net.network, net.images, net.bounds)
    found = maps(Subject(net.network, net.images), rules, options.steps)
    channels = slice(None, None, -1) if PRETRAINED[options.network][1].channels == "BGR" else slice(None)
    image = net.images[0].numpy()[channels].transpose(1, 2, 0)
    draw(options.output, image, found, f"{options.network}: random weights in this layer and all above it")
    return found


if __name__ == "__main__":
    main()
