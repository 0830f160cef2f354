"""Perturbation, segmentation and attack for learned roots and their baselines, on a net trained on Fashion-MNIST.

The object of a picture is where it is not black. Pixels go one by one, least relevant first, as in the paper.

    python -m examples.learned_roots.baselines --images 40 --picture maps.png
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
from rich.console import Console
from rich.table import Table

from benchmarks.parts.networks import TRAINED, trained
from relcompile import Options
from relcompile.evaluation import Results, Settings, Subject, evaluate
from relcompile.evaluation.metrics.intervals import estimate
from relcompile.evaluation.trial import Bench, Trial
from relcompile.presets import PRESETS

RULES = (
    *("lrp-0", "epsilon=0.25", "gamma=0.5", "w2", "z+", "zb", "montavon"),
    *("root", "root-v1", "root-v2", "root-v3"),
)
_METRICS = ("srg", "localisation", "attack", "roots")
_SHARES = (0.01, *(k / 10 for k in range(1, 10)))
_SHOWN = 6


def asked(rule: str, bounds: tuple[float, float]) -> Options:
    """What the compiler is asked for."""
    return Options(rule=rule, bounds=bounds if "bounds" in PRESETS[rule.partition("=")[0]].needs else None)


def kept(results: Results, rule: str) -> np.ndarray:
    """Area under the probability of the class while the least relevant pixels become the mean, of every picture."""
    steps = np.array([0.0, *_SHARES, 1.0])
    curves = [results.of(rule, "lerf", layer="mean", step=step) for step in steps]
    return np.asarray(np.trapezoid(np.array(curves), steps, axis=0))


def answered(results: Results, rule: str, shown: str) -> str:
    """F(root) or f(signal) as a share of f(x): the median."""
    values = results.of(rule, "answer", layer=shown)
    return f"{np.median(values / results.of(rule, 'answer', layer='x')):.2f}" if len(values) else ""


def show(results: Results) -> None:
    """One row a rule."""
    table = Table("rule", "least relevant first", "SRG", "IoU", "mPA", "class changes", "f(root)", "f(signal)")
    for rule in results.rules:
        srg = results.of(rule, "srg", layer="mean")
        means = [estimate(values) for values in (kept(results, rule), srg)]
        means += [estimate(results.of(rule, metric)) for metric in ("iou", "mpa", "attack-hit")]
        cells = [f"{mean.value:.2f} ({mean.low:.2f}..{mean.high:.2f})" for mean in means]
        table.add_row(rule, *cells, answered(results, rule, "root"), answered(results, rule, "signal"))
    Console(width=150).print(table)


def draw(subject: Subject, rules: dict[str, Options], path: Path) -> None:
    """Pictures, and the map of every rule: red speaks for the class."""
    bench = Bench(subject.part(0, _SHOWN))
    count = len(bench.subject.images)
    columns: dict[str, Any] = {"": bench.subject.images[:, 0].numpy()}
    columns |= {name: Trial(bench, name, options).maps for name, options in rules.items()}
    figure = Figure(figsize=(1.1 * len(columns), 1.1 * count), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(count, len(columns))
    for column, (name, maps) in enumerate(columns.items()):
        axes[0, column].set_title(name, fontsize=8)
        for axis, values in zip(axes[:, column], maps, strict=True):
            limit = np.abs(values).max() or 1.0
            style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if name else {"cmap": "gray"}
            axis.imshow(values, **style)
            axis.set_axis_off()
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> Results:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(TRAINED), default="vgg")
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=Path("nets"), help="folder of the trained net")
    parser.add_argument("--picture", type=Path, help="draw the maps of six pictures into this .png file")
    parser.add_argument("--output", type=Path, help="keep the results in this .parquet file, for `relcompile report`")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    net = trained(options.network, options.cache)
    images, labels = net.images[: options.images], net.labels[: options.images]
    masks = (images[:, 0] > net.bounds[0] + 1e-3).numpy()
    subject = Subject(net.network, images, masks, labels)
    rules = {name: asked(name, net.bounds) for name in options.rules}
    results = evaluate(subject, rules, _METRICS, Settings(patch=1, shares=_SHARES))
    show(results)
    if options.output:
        results.save(options.output)
    if options.picture:
        draw(subject, rules, options.picture)
    return results


if __name__ == "__main__":
    main()
